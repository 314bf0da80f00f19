"""A work queue like controller-runtime's: a key is in it once, is handled by one worker, and backs off after a failure.

kopf's own retries would hold one of its worker slots while they sleep; here a key in backoff costs only a timer.
Queued keys are served fairly by their flows, and no group of flows holds all workers: thousands of keys of one
namespace do not delay a key of another one. The queue is only a cache: after a restart everything unfinished is found
again by listing. See also: `fairness` has the order; `controllers.feed` and the periodic tasks add keys;
`controllers.wiring` connects it to the controllers.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from voucher_operator import telemetry
from voucher_operator.kube.errors import BusyError
from voucher_operator.kube.fairness import FairQueue, Flow, namespace_of
from voucher_operator.resources.errors import ApiError, TransientError

log = logging.getLogger(__name__)

_GUARANTEED: Final = 16
"""One part in so many of the workers is what each group has always, even when other groups hold all workers."""


class Result(Enum):
    """What the queue does with a key after a reconcile."""

    DONE = "done"
    REQUEUE = "requeue"
    """Reconcile again at once: the object has changed meanwhile."""
    RETRY = "retry"
    """Retry with backoff."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Retry after so many seconds, when it is known how long the cause lasts; instead of a `Result`."""

    seconds: float


ReconcileResult = Result | RetryAfter
"""What a reconcile returns."""


class WorkQueue:
    """Keys (`namespace/name`) to be reconciled; must be used from one event loop."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[str], Awaitable[ReconcileResult]],
        *,
        workers: int,
        backoff_max: float,
        backoff_min: float = 0.5,
        flow: Callable[[str], Flow] = namespace_of,
    ) -> None:
        """Prepare a queue with `workers`, shared by the flows of the keys.

        While several groups wait, none of them gets more than half of the workers. A group that works alone gets all
        of them; the first keys of another group then get a few workers more, because those that are held may wait long.
        """
        self.name = name
        self._reconcile = reconcile
        self._flow = flow
        self._workers = workers
        self._share = max(1, workers // 2)
        self._guaranteed = max(1, workers // _GUARANTEED)
        self._backoff = (backoff_min, backoff_max)
        self._ready: FairQueue[tuple[str, float]] = FairQueue()
        self._queued: set[str] = set()
        self._running: dict[str, str] = {}
        """Keys under way, with their groups."""
        self._held: Counter[str] = Counter()
        """Workers by group."""
        self._dirty: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queued) + len(self._timers) + len(self._running)

    def is_backing_off(self, key: str) -> bool:
        """Whether the key is in backoff after a failure."""
        return key in self._timers

    def knows(self, key: str) -> bool:
        """Whether the key is queued, running or in backoff."""
        return key in self._queued or key in self._running or key in self._timers

    def add(self, key: str) -> None:
        """Reconcile the key now; when it is running, reconcile it again afterwards."""
        self._cancel_timer(key)
        if key in self._running:
            self._dirty.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.push(self._flow(key), (key, asyncio.get_running_loop().time()))
            self._dispatch()

    def add_after(self, key: str, delay: float) -> None:
        """Reconcile the key after a delay in seconds, unless it is queued, running or in backoff already."""
        if not self.knows(key):
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self.add, key)

    def resume(self, key: str, failing_for: float) -> None:
        """Continue the backoff of a key that has failed for so many seconds, as far as an earlier leader has recorded.

        It is reconciled within the pause that it had reached; thousands of such keys are spread over it.
        """
        low, high = self._backoff
        pause = min(high, max(0.0, failing_for))
        if not self.knows(key):
            self._failures[key] = int(pause / low).bit_length()
            self.add_after(key, pause * random.random())  # noqa: S311 - spreads the load

    def wake(self) -> None:
        """Reconcile every key in backoff now: the system that they wait for is available again."""
        for key in list(self._timers):
            self.add(key)

    async def run(self) -> None:
        """Work until `stop`, then finish the running keys."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._dispatch()
                await self._stopping.wait()
        finally:
            # Timers and watch events may still add keys: nobody works on them any more.
            self._group = None
            self.stop()

    def stop(self) -> None:
        """Let each worker finish its current key and end."""
        self._stopping.set()
        for key in list(self._timers):
            self._cancel_timer(key)

    def _dispatch(self) -> None:
        """Start workers for what may be worked on now."""
        while self._group is not None and (key := self._take()) is not None:
            self._group.create_task(self._work(key))

    def _take(self) -> str | None:
        """Take the next key, and with it a worker of its group."""
        if self._stopping.is_set() or (taken := self._ready.pop(self._may_start)) is None:
            return None
        (group, _), (key, since) = taken
        telemetry.QUEUE_WAIT.labels(self.name).observe(asyncio.get_running_loop().time() - since)
        self._queued.discard(key)
        self._running[key] = group
        self._held[group] += 1
        return key

    def _may_start(self, group: str) -> bool:
        held = self._held[group]
        if held < self._guaranteed:
            return True
        return len(self._running) < self._workers and (held < self._share or self._ready.groups == 1)

    async def _work(self, key: str | None) -> None:
        """Work on a key, and then on others as long as there are any."""
        while key is not None:
            result: ReconcileResult = Result.RETRY
            try:
                result = await self._attempt(key)
            finally:
                self._release(key)
            self._settle(key, result)
            key = self._take()
            # What was taken may have been the last key of its group: another group may have more workers now.
            self._dispatch()

    def _release(self, key: str) -> None:
        group = self._running.pop(key)
        self._held[group] -= 1
        if not self._held[group]:
            del self._held[group]

    async def _attempt(self, key: str) -> ReconcileResult:
        try:
            return await self._reconcile(key)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.error("reconcile was cancelled, will retry", extra=_extra(self.name, key, "InternalError", "Cancelled"))
        except TransientError as error:
            log.info("will retry", extra=_extra(self.name, key, error.reason, error.message))
        except BusyError:
            log.debug("will retry", extra=_extra(self.name, key, "Busy", "too many others wait"))
        except ApiError as error:
            reason = type(error).__name__.removesuffix("Error")
            log.info("will retry", extra=_extra(self.name, key, reason, str(error)))
        except Exception as error:
            log.exception(
                "reconcile failed, will retry", extra=_extra(self.name, key, "InternalError", type(error).__name__)
            )
        return Result.RETRY

    def _settle(self, key: str, result: ReconcileResult) -> None:
        if result is not Result.RETRY:
            self._failures.pop(key, None)
        if result is Result.REQUEUE or key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
        elif result is not Result.DONE and not self._stopping.is_set():
            spread = random.uniform(1.0, 1.2)  # noqa: S311 - jitter
            self.add_after(key, result.seconds * spread if isinstance(result, RetryAfter) else self._next_delay(key))

    def _next_delay(self, key: str) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        low, high = self._backoff
        return min(high, low * float(1 << min(failures - 1, 20))) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter

    def _cancel_timer(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            self._timers.pop(key).cancel()


def _extra(kind: str, key: str, reason: str, detail: str) -> dict[str, Any]:
    return {"resource": kind, "key": key, "reason": reason, "detail": detail}

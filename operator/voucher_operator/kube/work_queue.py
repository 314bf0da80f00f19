"""A work queue like controller-runtime's: a key is in it once, is handled by one worker, and backs off after a failure.

kopf's own retries would hold one of its worker slots while they sleep; here a key in backoff costs only a timer.
The queue is only a cache: after a restart everything unfinished is found again by listing. See also:
`controllers.feed` and the periodic tasks add keys; `controllers.wiring` connects it to the controllers.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from voucher_operator.resources.errors import ApiError, TransientError

log = logging.getLogger(__name__)


class Result(Enum):
    """What the queue does with a key after a reconcile."""

    DONE = "done"
    REQUEUE = "requeue"
    """Reconcile again at once: the object has changed meanwhile."""
    RETRY = "retry"
    """Retry with backoff."""


class WorkQueue:
    """Keys (`namespace/name`) to be reconciled; must be used from one event loop."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[str], Awaitable[Result]],
        *,
        workers: int,
        backoff_max: float,
        backoff_min: float = 0.5,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._backoff = (backoff_min, backoff_max)
        self._ready: asyncio.Queue[str | None] = asyncio.Queue()
        self._queued: set[str] = set()
        self._running: set[str] = set()
        self._dirty: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopping = False

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
            self._ready.put_nowait(key)

    def add_after(self, key: str, delay: float) -> None:
        """Reconcile the key after a delay in seconds, unless it is queued, running or in backoff already."""
        if not self.knows(key):
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self.add, key)

    def wake(self) -> None:
        """Reconcile every key in backoff now: the system that they wait for is available again."""
        for key in list(self._timers):
            self.add(key)

    async def run(self) -> None:
        """Work until `stop`, then finish the running keys."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    def stop(self) -> None:
        """Let each worker finish its current key and end."""
        self._stopping = True
        for key in list(self._timers):
            self._cancel_timer(key)
        for _ in range(self._workers):
            self._ready.put_nowait(None)

    async def _work(self) -> None:
        while (key := await self._ready.get()) is not None and not self._stopping:
            self._queued.discard(key)
            self._running.add(key)
            try:
                result = await self._attempt(key)
            finally:
                self._running.discard(key)
            self._settle(key, result)

    async def _attempt(self, key: str) -> Result:
        try:
            return await self._reconcile(key)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.error("reconcile was cancelled, will retry", extra=_extra(self.name, key, "InternalError", "Cancelled"))
        except TransientError as error:
            log.info("will retry", extra=_extra(self.name, key, error.reason, error.message))
        except ApiError as error:
            reason = type(error).__name__.removesuffix("Error")
            log.info("will retry", extra=_extra(self.name, key, reason, str(error)))
        except Exception as error:
            log.exception(
                "reconcile failed, will retry", extra=_extra(self.name, key, "InternalError", type(error).__name__)
            )
        return Result.RETRY

    def _settle(self, key: str, result: Result) -> None:
        if result is not Result.RETRY:
            self._failures.pop(key, None)
        if result is Result.REQUEUE or key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
        elif result is Result.RETRY and not self._stopping:
            self.add_after(key, self._next_delay(key))

    def _next_delay(self, key: str) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        low, high = self._backoff
        return min(high, low * float(1 << min(failures - 1, 20))) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter

    def _cancel_timer(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            self._timers.pop(key).cancel()


def _extra(kind: str, key: str, reason: str, detail: str) -> dict[str, Any]:
    return {"resource": kind, "key": key, "reason": reason, "detail": detail}

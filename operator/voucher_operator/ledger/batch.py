"""Runs concurrent requests, to redeem or to buy, in batches: one transaction for each batch.

A single request starts at once; those that arrive while a commit is under way form the next batch. Requests run in
arrival order in the main queue. When another session holds a row locked, the requests that need this row move to an
isolated queue on another connection, until one succeeds there; the other requests of the batch wait no longer. A batch
with a value that PostgreSQL cannot store is bisected until the bad request is alone.

See also: `redemption.redeem` and `purchase.batch` run a batch; `api` has one Batcher for each.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from voucher_operator.ledger.errors import LedgerBusyError, closed
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import LeaseExpiredError, LedgerUnavailableError, OperatorError

MAX_BATCH: Final = 500

_log = logging.getLogger(__name__)


class Request(Protocol):
    """What the queues need of a request: its key, and the rows that it locks. A blank code locks none."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def code(self) -> str: ...  # noqa: D102
    @property
    def user_id(self) -> str: ...  # noqa: D102


Q = TypeVar("Q", bound=Request)
A = TypeVar("A")

Work = Callable[[Sequence[Q]], Awaitable[list[A | OperatorError]]]
Held = Callable[[Sequence[Q]], Awaitable[tuple[set[str], set[str]]]]
"""Returns which codes (normal form) and users of some requests another session has locked."""


@dataclass(slots=True)
class _Job(Generic[Q, A]):
    request: Q
    answer: asyncio.Future[A]

    def set_result(self, result: A | OperatorError) -> None:
        if isinstance(result, OperatorError):
            self.fail(result)
        elif not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        # One instance for each caller: a shared one would collect the tracebacks of all callers.
        if not self.answer.done():
            self.answer.set_exception(
                type(error)(*error.args) if isinstance(error, OperatorError | LeaseExpiredError) else error
            )


@dataclass(slots=True)
class _SerialQueue(Generic[Q, A]):
    """Requests that run one batch after another."""

    waiting: deque[_Job[Q, A]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None

    def take(self, most: int, one_each: bool) -> list[_Job[Q, A]]:
        """Take the next batch: in arrival order, no key (no user) twice, without those whose caller has given up."""
        taken: dict[str, _Job[Q, A]] = {}
        users: set[str] = set()
        left: list[_Job[Q, A]] = []
        while self.waiting and len(taken) < most:
            job = self.waiting.popleft()
            if job.request.key in taken or job.request.user_id in users:
                left.append(job)
            elif not job.answer.done():
                taken[job.request.key] = job
                if one_each:
                    users.add(job.request.user_id)
        self.waiting.extendleft(reversed(left))
        return list(taken.values())


class Batcher(Generic[Q, A]):
    """`submit` returns a future. Cancelling it affects no other request; a result is read again by its key.

    `most` requests make a batch; with `one_each` a user has at most one of them.
    """

    def __init__(
        self,
        work: Work[Q, A],
        held: Held[Q],
        isolated_connections: int,
        *,
        most: int = MAX_BATCH,
        one_each: bool = False,
    ) -> None:
        self._work = work
        self._held = held
        self._most = most
        self._one_each = one_each
        self._main: _SerialQueue[Q, A] = _SerialQueue()
        self._isolated: dict[tuple[str, str], _SerialQueue[Q, A]] = {}
        # The isolated queues leave connections to the main queue and to everything that is no batch.
        self._slots = asyncio.Semaphore(max(1, isolated_connections))
        self._orphaned: set[asyncio.Task[None]] = set()
        self._closed = False

    def submit(self, request: Q) -> asyncio.Future[A]:
        """Queue a request. The future raises LedgerUnavailableError or RequestRejectedError."""
        if self._closed:
            raise closed()
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        key, queue = self._queue_of(request) if self._isolated else (None, self._main)
        queue.waiting.append(_Job(request, answer))
        if queue.task is None:
            queue.task = asyncio.create_task(self._drain() if key is None else self._drain_isolated(key, queue))
        return answer

    async def close(self) -> None:
        """Refuse further requests, and wait for those under way."""
        self._closed = True
        while tasks := [
            t for t in (self._main.task, *(queue.task for queue in self._isolated.values()), *self._orphaned) if t
        ]:
            await asyncio.wait(tasks)

    def _queue_of(self, request: Q) -> tuple[tuple[str, str] | None, _SerialQueue[Q, A]]:
        for key in (("code", normal_code(request.code)), ("user", request.user_id)):
            if queue := self._isolated.get(key):
                return key, queue
        return None, self._main

    async def _drain(self) -> None:
        queue = self._main
        try:
            while queue.waiting:
                if jobs := queue.take(self._most, self._one_each):
                    await self._settle(jobs, self._isolate_locked)
                # Callers whose result was just set may submit again within one turn of the loop: into the next batch.
                await asyncio.sleep(0)
        finally:
            queue.task = None

    async def _drain_isolated(self, key: tuple[str, str], queue: _SerialQueue[Q, A]) -> None:
        try:
            while queue.waiting:
                async with self._slots:
                    jobs = queue.take(self._most, self._one_each)
                    if jobs and await self._settle(jobs, self._give_up) and not queue.waiting:
                        self._isolated.pop(key, None)
        finally:
            queue.task = None

    async def _settle(
        self, jobs: list[_Job[Q, A]], busy: Callable[[list[_Job[Q, A]], LedgerBusyError], Awaitable[None]]
    ) -> bool:
        """Run a batch and finish its jobs, or pass them to `busy`; False when another session held a row."""
        try:
            results = await self._work([job.request for job in jobs])
        except LedgerBusyError as error:
            await busy(jobs, error)
            return False
        except (LedgerUnavailableError, LeaseExpiredError) as error:
            for job in jobs:
                job.fail(error)
        except asyncio.CancelledError:
            for job in jobs:
                job.answer.cancel()
            raise
        except Exception as error:
            # One of them has caused it: find it, and run the others without it.
            if len(jobs) > 1:
                half = len(jobs) // 2
                first = await self._settle(jobs[:half], busy)
                return await self._settle(jobs[half:], busy) and first
            jobs[0].fail(error)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.set_result(result)
        return True

    async def _give_up(self, jobs: list[_Job[Q, A]], error: LedgerBusyError) -> None:
        for job in jobs:
            job.fail(error)

    async def _isolate_locked(self, jobs: list[_Job[Q, A]], _error: LedgerBusyError) -> None:
        """Move the requests that need a locked row to isolated queues, and run the others."""
        try:
            codes, users = await self._held([job.request for job in jobs])
        except OperatorError:
            codes, users = set(), set()
        free = []
        for job in jobs:
            if (code := normal_code(job.request.code)) in codes:
                self._isolate(("code", code), job)
            elif job.request.user_id in users:
                self._isolate(("user", job.request.user_id), job)
            else:
                free.append(job)
        if free:
            await self._settle(free, self._bisect)

    def _isolate(self, key: tuple[str, str], job: _Job[Q, A]) -> None:
        queue = self._isolated.setdefault(key, _SerialQueue())
        queue.waiting.append(job)
        if queue.task is None:
            queue.task = asyncio.create_task(self._drain_isolated(key, queue))

    async def _bisect(self, jobs: list[_Job[Q, A]], error: LedgerBusyError) -> None:
        """Find in the background which request waits, when the probes have found no locked row."""
        task = asyncio.create_task(self._bisect_in_background(jobs, error))
        self._orphaned.add(task)
        task.add_done_callback(self._orphaned.discard)

    async def _bisect_in_background(self, jobs: list[_Job[Q, A]], error: LedgerBusyError) -> None:
        if len(jobs) == 1:
            jobs[0].fail(error)
            return
        half = len(jobs) // 2
        for part in (jobs[:half], jobs[half:]):
            async with self._slots:
                await self._settle(part, self._bisect)

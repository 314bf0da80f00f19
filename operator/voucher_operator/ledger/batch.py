"""Gathers concurrent requests, to redeem or to buy, into one transaction.

A lone request starts at once; those that arrive while a commit is under way form the next batch. Requests run in
arrival order in one lane. When somebody holds a row locked, the requests that need that row move to a lane of their
own, on another connection, until it succeeds there: their neighbours wait no more. A batch with a value that PostgreSQL
cannot store is halved until the bad request stands alone. See also: `redeem` and
`purchase_batch` speak to PostgreSQL, `api` is the door.
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
    """What the lanes go by: the key, and the rows that a request needs. A blank code needs none."""

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
"""Which codes (normal form) and users of some requests another session holds locked."""


@dataclass(slots=True)
class _Job(Generic[Q, A]):
    request: Q
    answer: asyncio.Future[A]

    def give(self, result: A | OperatorError) -> None:
        if isinstance(result, OperatorError):
            self.fail(result)
        elif not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        # One instance a caller: a shared one would gather everybody's traceback.
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
        """Take the next batch: in arrival order, no key (no user) twice, without those whose caller has gone."""
        taken: dict[str, _Job[Q, A]] = {}
        users: set[str] = set()
        again: list[_Job[Q, A]] = []
        while self.waiting and len(taken) < most:
            job = self.waiting.popleft()
            if job.request.key in taken or job.request.user_id in users:
                again.append(job)
            elif not job.answer.done():
                taken[job.request.key] = job
                if one_each:
                    users.add(job.request.user_id)
        self.waiting.extendleft(reversed(again))
        return list(taken.values())


class Batcher(Generic[Q, A]):
    """`submit` hands back a future; cancelling it hurts nobody else, and what was granted is read again by its key.

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
        # Side lanes leave connections to the main lane and to what is no redemption.
        self._slots = asyncio.Semaphore(max(1, isolated_connections))
        self._orphaned: set[asyncio.Task[None]] = set()
        self._closed = False

    def submit(self, request: Q) -> asyncio.Future[A]:
        """Queue a request. The future raises LedgerUnavailableError or RequestRejectedError."""
        if self._closed:
            raise closed()
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        key, lane = self._queue_of(request) if self._isolated else (None, self._main)
        lane.waiting.append(_Job(request, answer))
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain() if key is None else self._drain_isolated(key, lane))
        return answer

    async def close(self) -> None:
        """Take no more, and wait for what is under way."""
        self._closed = True
        while tasks := [
            t for t in (self._main.task, *(la.task for la in self._isolated.values()), *self._orphaned) if t
        ]:
            await asyncio.wait(tasks)

    def _queue_of(self, request: Q) -> tuple[tuple[str, str] | None, _SerialQueue[Q, A]]:
        for key in (("code", normal_code(request.code)), ("user", request.user_id)):
            if lane := self._isolated.get(key):
                return key, lane
        return None, self._main

    async def _drain(self) -> None:
        lane = self._main
        try:
            while lane.waiting:
                if jobs := lane.take(self._most, self._one_each):
                    await self._settle(jobs, self._isolate_locked)
                # Callers that were just answered ask again within one turn of the loop: let them into the next batch.
                await asyncio.sleep(0)
        finally:
            lane.task = None

    async def _drain_isolated(self, key: tuple[str, str], lane: _SerialQueue[Q, A]) -> None:
        try:
            while lane.waiting:
                async with self._slots:
                    jobs = lane.take(self._most, self._one_each)
                    if jobs and await self._settle(jobs, self._give_up) and not lane.waiting:
                        self._isolated.pop(key, None)
        finally:
            lane.task = None

    async def _settle(
        self, jobs: list[_Job[Q, A]], busy: Callable[[list[_Job[Q, A]], LedgerBusyError], Awaitable[None]]
    ) -> bool:
        """Do the work, and answer every job or hand it on; False when somebody else held a row."""
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
            # One of them is to blame: the others must not pay for it.
            if len(jobs) > 1:
                half = len(jobs) // 2
                first = await self._settle(jobs[:half], busy)
                return await self._settle(jobs[half:], busy) and first
            jobs[0].fail(error)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.give(result)
        return True

    async def _give_up(self, jobs: list[_Job[Q, A]], error: LedgerBusyError) -> None:
        for job in jobs:
            job.fail(error)

    async def _isolate_locked(self, jobs: list[_Job[Q, A]], _error: LedgerBusyError) -> None:
        """Move what needs a locked row to lanes of its own, and let the others run."""
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
        lane = self._isolated.setdefault(key, _SerialQueue())
        lane.waiting.append(job)
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain_isolated(key, lane))

    async def _bisect(self, jobs: list[_Job[Q, A]], error: LedgerBusyError) -> None:
        """Nobody is seen to hold a row, and yet they wait: find out aside which request it is."""
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

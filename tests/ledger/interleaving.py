"""Steps database sessions through the orders of their statements, one statement at a time.

A race that a thousand random runs miss is found by trying every order in which the sessions' statements can follow one
another, as CHESS does for threads (Musuvathi et al., "Finding and Reproducing Heisenbugs", OSDI 2008). The code under
test is the product's own: it is handed a connection that stops before each statement and before each COMMIT until the
scheduler lets it go on. A session that waits for a lock is seen in `pg_blocking_pids` and left aside until it goes on.

A schedule is the list of sessions that were let on, one for each step. `explore` runs them all, or those with at most
`preemptions` changes away from a session that could have gone on.

See also: `test_interleavings` has the operations and what must hold after each schedule; test_purchase_two_replicas.py
and test_ownership.py have two replicas that ask for the same.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from testbed.postgres import Database
from voucher_operator.ledger import pool
from voucher_operator.ledger.session import OPERATOR, SESSION

Operation = Callable[["SteppedConnection"], Awaitable[Any]]
TRIES = 5


class SteppedConnection:
    """Looks like an autocommit connection of psycopg to the ledger's code and to the Go service's statements."""

    autocommit = True

    def __init__(self, conn: psycopg.AsyncConnection[Any], *, ours: bool) -> None:
        self.conn = conn
        self.ours = ours
        self.pid = conn.info.backend_pid
        self.arrived = asyncio.Event()
        self._go = asyncio.Event()
        self._depth = 0

    async def step(self) -> None:
        """Wait until the scheduler continues this session."""
        self.arrived.set()
        await self._go.wait()
        self._go.clear()

    def let_on(self) -> None:
        """Allow one statement."""
        self.arrived.clear()
        self._go.set()

    async def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None) -> Any:
        """Run a statement of its own when it is this session's turn."""
        await self.step()
        return await self.conn.execute(query, params, prepare=prepare)

    def cursor(self, **options: Any) -> "_SteppedCursor":
        """Make a cursor whose statements stop, too."""
        return _SteppedCursor(self, self.conn.cursor(**options))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """BEGIN takes no snapshot, so it is no step; COMMIT is one."""
        if self._depth:
            yield
            return
        await self.conn.execute("BEGIN")
        self._depth += 1
        try:
            yield
            await self.step()
            await self.conn.execute("COMMIT")
        except psycopg.Rollback:
            await self.conn.execute("ROLLBACK")
        except BaseException:
            await self.conn.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    pipeline = transaction
    """PostgreSQL runs a pipeline as one transaction; here each of its statements is a step."""


class _SteppedCursor:
    def __init__(self, session: SteppedConnection, cursor: psycopg.AsyncCursor[Any]) -> None:
        self._session = session
        self._cursor = cursor

    async def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None) -> None:
        await self._session.step()
        await self._cursor.execute(query, params, prepare=prepare)

    async def fetchall(self) -> list[Any]:
        return await self._cursor.fetchall()

    async def fetchone(self) -> Any:
        return await self._cursor.fetchone()


@dataclass(slots=True)
class Run:
    """One schedule: at each step who could go on and who did; in the end each operation's answer or error."""

    options: list[tuple[int, ...]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    def preemptions(self) -> int:
        """How often a session was left that could have gone on."""
        steps = zip(self.chosen, self.chosen[1:], self.options[1:], strict=False)
        return sum(one != two and one in options for one, two, options in steps)


class Scheduler:
    """Runs operations, each on a session of its own, in the order of a schedule. `watcher` reads the locks."""

    def __init__(self, watcher: psycopg.AsyncConnection[Any]) -> None:
        self._watcher = watcher

    async def run(
        self, sessions: Sequence[SteppedConnection], operations: Sequence[Operation], schedule: Sequence[int]
    ) -> Run:
        """Follow `schedule`, then let each session go on as far as it can."""
        run = Run()
        for session in sessions:
            session.arrived.clear()
        tasks = [
            asyncio.create_task(_repeated(operation, session))
            for operation, session in zip(operations, sessions, strict=True)
        ]
        while not all(task.done() for task in tasks):
            ready = await self._ready(sessions, tasks)
            if ready:
                choice = _choose(run, ready, schedule)
                run.options.append(ready)
                run.chosen.append(choice)
                sessions[choice].let_on()
        run.answers = list(await asyncio.gather(*tasks, return_exceptions=True))
        return run

    async def _ready(
        self, sessions: Sequence[SteppedConnection], tasks: Sequence["asyncio.Task[Any]"]
    ) -> tuple[int, ...]:
        """Wait until every session is before a statement, has ended, or waits for a lock; return the ready ones."""
        ready: list[int] = []
        for n, (session, task) in enumerate(zip(sessions, tasks, strict=True)):
            if await self._stops(session, task) and not task.done():
                ready.append(n)
        return tuple(ready)

    async def _stops(self, session: SteppedConnection, task: "asyncio.Task[Any]") -> bool:
        """Whether a session has stopped; False when another session blocks it."""
        arrival = asyncio.ensure_future(session.arrived.wait())
        try:
            while True:
                await asyncio.wait({arrival, task}, timeout=0.005, return_when=asyncio.FIRST_COMPLETED)
                if arrival.done() or task.done():
                    return True
                row = await (
                    await self._watcher.execute("SELECT cardinality(pg_blocking_pids(%s))", (session.pid,))
                ).fetchone()
                if row is not None and row[0]:
                    return False
        finally:
            arrival.cancel()


@dataclass(slots=True)
class Sessions:
    """Sessions of replicas and of the Go service, three of each, and their scheduler."""

    scheduler: Scheduler
    replicas: list[SteppedConnection]
    go_services: list[SteppedConnection]

    async def run(self, operations: Sequence[Operation], schedule: Sequence[int]) -> Run:
        """Run each operation in a replica."""
        return await self.scheduler.run(self.replicas[: len(operations)], operations, schedule)


@asynccontextmanager
async def open_sessions(database: Database, *, lock_timeout: str = "100ms") -> AsyncIterator[Sessions]:
    """Open the sessions. Those of replicas have a lock timeout, those of the Go service have none.

    A deadlock is found after a second: with a shorter `lock_timeout` it is a lock timeout, which is repeated.
    """
    async with AsyncExitStack() as stack:

        async def session(url: str, *, ours: bool) -> SteppedConnection:
            conn = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
            if ours:
                await conn.execute(SESSION, OPERATOR)
                await conn.execute(f"SET lock_timeout = '{lock_timeout}'".encode())
            return SteppedConnection(conn, ours=ours)

        watcher = await psycopg.AsyncConnection.connect(database.admin_url, autocommit=True)
        yield Sessions(
            Scheduler(await stack.enter_async_context(watcher)),
            [await session(database.runtime_url, ours=True) for _ in range(3)],
            [await session(database.owner_url, ours=False) for _ in range(3)],
        )


def _choose(run: Run, ready: tuple[int, ...], schedule: Sequence[int]) -> int:
    step = len(run.chosen)
    if step < len(schedule) and schedule[step] in ready:
        return schedule[step]
    return run.chosen[-1] if run.chosen and run.chosen[-1] in ready else ready[0]


async def _repeated(operation: Operation, session: SteppedConnection) -> Any:
    """Repeat as `pool.Pool` does after a lost race, and as `batch.Batcher` does after a lock timeout."""
    for _ in range(TRIES - 1):
        try:
            return await operation(session)
        except psycopg.Error as error:
            if not session.ours or error.sqlstate not in {*pool._REPEATED, "55P03"}:
                raise
    return await operation(session)


async def explore(
    once: Callable[[Sequence[int]], Awaitable[Run]], *, preemptions: int | None = None
) -> AsyncIterator[Run]:
    """Run every schedule, each once; with at most so many preemptions."""
    waiting: list[list[int]] = [[]]
    while waiting:
        prefix = waiting.pop()
        run = await once(prefix)
        yield run
        for step in range(len(prefix), len(run.chosen)):
            for other in run.options[step]:
                if other != run.chosen[step]:
                    longer = Run(run.options[: step + 1], [*run.chosen[:step], other])
                    if preemptions is None or longer.preemptions() <= preemptions:
                        waiting.append(longer.chosen)

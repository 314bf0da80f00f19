"""Sessions that run one statement at a time, so that a test decides in which order two replicas reach the ledger.

A statement that waits for a lock of the other session counts as a step taken: the test goes on, and the statement ends
when the lock is free. See also: `voucher_operator.ledger.pool`, whose repetition of a lost race is done here, too.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from testbed.postgres import Database
from voucher_operator.ledger.pool import _AGAIN
from voucher_operator.ledger.statements import statement

Connection = psycopg.AsyncConnection[TupleRow]


class _Connection(Connection):
    """Every statement is sent when its turn comes; a pipeline is one transaction, as PostgreSQL runs it."""

    def pipeline(self) -> Any:
        idle = self.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        return self.transaction() if idle else nullcontext()


class Session:
    """One session: `start` some work in it, `step` through its statements, `release` the rest, and take the `result`.

    Then it can be started again.
    """

    def __init__(self, conn: Connection, watcher: Connection) -> None:
        """`watcher` sees whether `conn` waits for a lock."""
        self._conn, self._watcher = conn, watcher
        self._task: asyncio.Task[str]
        self._arrived = asyncio.Event()
        self._permits = asyncio.Semaphore(0)
        self._free = True

    async def passed(self) -> None:
        """Wait in front of a statement for its turn."""
        if not self._free:
            self._arrived.set()
            await self._permits.acquire()

    def start(self, work: Callable[[Connection], Awaitable[str]]) -> None:
        """Begin the work, up to before its first statement."""
        self._free = False
        self._permits = asyncio.Semaphore(0)
        self._arrived.clear()
        self._task = asyncio.create_task(self._repeated(work))

    async def step(self) -> None:
        """Run one statement, until it has ended or waits for a lock. Nothing happens after the last one."""
        await self._settled()
        if self._arrived.is_set():
            self._arrived.clear()
            self._permits.release()
            await self._settled()

    async def release(self) -> None:
        """Run what is left, until it has ended or waits for a lock."""
        self._free = True
        self._arrived.clear()
        self._permits.release()
        await self._settled()

    async def result(self) -> str:
        """Wait for the end of the work that was released."""
        return await self._task

    async def _settled(self) -> None:
        async with asyncio.timeout(20):
            while not (self._task.done() or self._arrived.is_set() or await self._waits_for_lock()):
                pass

    async def _waits_for_lock(self) -> bool:
        query = b"SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        return await (await self._watcher.execute(query, (self._conn.info.backend_pid,))).fetchone() is not None

    async def _repeated(self, work: Callable[[Connection], Awaitable[str]]) -> str:
        while True:
            try:
                return await work(self._conn)
            except psycopg.Error as error:
                if error.sqlstate not in _AGAIN:
                    raise


@asynccontextmanager
async def stepped(database: Database) -> AsyncIterator[Session]:
    """Open a session with a replica's rights and limits."""
    async with (
        await psycopg.AsyncConnection.connect(database.admin_url, autocommit=True) as watcher,
        await _Connection.connect(database.runtime_url, autocommit=True) as conn,
    ):
        await conn.execute(statement("session").encode())
        session = Session(conn, watcher)

        class Stepped(psycopg.AsyncCursor[TupleRow]):
            async def execute(self, *args: Any, **kwargs: Any) -> Any:
                await session.passed()
                return await super().execute(*args, **kwargs)

        conn.cursor_factory = Stepped
        yield session

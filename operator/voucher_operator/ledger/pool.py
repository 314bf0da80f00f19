"""Connections to PostgreSQL: session limits, and work that is repeated after a lost connection, race or deadlock.

`Pool.run` and `Pool.run_unmonitored` are the only ways to a connection. Their work must be safe to repeat, because a
commit whose acknowledgement was lost is repeated: every write of the ledger is idempotent, by its key or by its owner.
See also: `connector` makes the connections; `time_limit` ends work; `errors` has the messages.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from voucher_operator import telemetry
from voucher_operator.ledger import errors
from voucher_operator.ledger.connector import OPTIONS, Connection, Connector
from voucher_operator.ledger.replication import ReplicationCheck
from voucher_operator.ledger.session import Pooler
from voucher_operator.ledger.time_limit import disconnect, within
from voucher_operator.ledger.transactions import LedgerConnection, in_unit
from voucher_operator.resources.errors import LedgerUnavailableError

T = TypeVar("T")

_log = logging.getLogger(__name__)

ACQUIRE_SECONDS: Final = 1.5
"""How long a caller waits for a new connection after one has failed: the pool tries again after a second."""
_ACQUIRE_TRIES: Final = 3
"""How often ACQUIRE_SECONDS are waited while none has failed: for longer than a connection may take."""
TURN_SECONDS: Final = 5.0
"""How long a caller waits until one of the connections is free."""
CHECK_SECONDS: Final = 4.0
"""How long a health check may take, all in all: less than the kubelet waits for the readiness probe."""
ANSWER_SECONDS: Final = 15.0
"""How long a piece of work may take with all its tries; the server's own limits (session.py) are shorter."""
_TRIES: Final = 5
_REPEATED: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "23503",  # foreign_key_violation: a row that ours refers to was deleted
        "23505",  # unique_violation: another session wrote the same key
        "23514",  # check_violation: 'overtaken' in redeem.sql
    }
)
_STALE_PLAN: Final = frozenset({"0A000", "26000"})
"""A prepared statement that the server does not know any more, or whose tables a migration has changed."""


class Pool:
    """A few connections, which are opened again after a failure.

    `conninfo` is called at each new connection, so that a rotated password is used; every error that it raises counts
    as missing settings. `size` is the most connections at once; one more is reserved for health checks, so that a full
    pool does not look like an outage. `pooler`: whether another pool may be between this one and PostgreSQL.
    """

    def __init__(self, conninfo: Callable[[], str], size: int, pooler: Pooler = "auto") -> None:
        # Its warnings contain the server's messages, one for each try: `_record` logs one message of ours.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        self._connector = Connector(conninfo, pooler, self._drain)
        self._replication = ReplicationCheck()
        self._down = False
        self._in_use: dict[Connection, float] = {}
        """Since when, by the event loop's clock."""
        self._probing: asyncio.Task[None] | None = None
        self.size = size
        self._slots = asyncio.Semaphore(size)
        self._reserved = asyncio.Semaphore(1)
        self._pool = AsyncConnectionPool(
            self._connector.conninfo,
            connection_class=self._connector.connection_class,
            kwargs=OPTIONS,
            min_size=min(2, size),
            max_size=size + 1,
            open=False,
            configure=self._configure,
            timeout=ACQUIRE_SECONDS,
            reconnect_timeout=ACQUIRE_SECONDS,
            name="ledger",
        )

    async def open(self) -> None:
        """Start connecting in the background; it is no error when PostgreSQL cannot be reached."""
        await self._pool.open(wait=False)
        self._probing = asyncio.create_task(self._connector.probe_forever())

    async def close(self) -> None:
        """Close all connections. An event loop does not end while a pool is open."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait((self._probing,))
        await self._pool.close(timeout=5.0)

    async def run(
        self, work: Callable[[Connection], Awaitable[T]], *, reserved: bool = False, seconds: float = ANSWER_SECONDS
    ) -> T:
        """Run `work` with a connection in autocommit mode; repeat it after a lost connection or a lost race.

        `reserved` work may use the connection that is kept free for it. All of it takes `seconds` at most. The result
        of other work is returned when it is replicated (`replication`).

        Raises LedgerUnavailableError (LedgerBusyError: another session holds a row; NewerVersionError: only a newer
        version can read a row; PoolFullError: our connections are all in use) and RequestRejectedError.
        """
        return await self._cancellable(self._monitored(work, reserved, seconds))

    async def run_unmonitored(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the same for work that uses no object of the ledger: its failure does not make the ledger unavailable.

        It may use the reserved connection.
        """
        return await self._cancellable(self._translated(work, True, ANSWER_SECONDS, confirmed=False))

    async def _cancellable(self, running: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            return await running
        finally:
            if task is not None and task.cancelling() > before:
                # Before Python 3.12 `asyncio.wait_for`, which the pool uses, may lose a cancellation; the caller
                # cancels once and waits for the task to end.
                raise asyncio.CancelledError

    async def _monitored(self, work: Callable[[Connection], Awaitable[T]], reserved: bool, seconds: float) -> T:
        read_only = self._connector.read_only
        try:
            result = await self._translated(work, reserved, seconds, confirmed=not reserved)
        except LedgerUnavailableError as error:
            telemetry.LEDGER_ERRORS.inc()
            if errors.is_outage(error):
                self._record(error)
            raise
        if read_only == self._connector.read_only:
            # Otherwise it may have read on a session of before a server became read-only.
            self._record(None)
        return result

    async def _translated(
        self, work: Callable[[Connection], Awaitable[T]], reserved: bool, seconds: float, *, confirmed: bool
    ) -> T:
        try:
            return await self._repeated(work, reserved, seconds, confirmed)
        except TimeoutError:
            raise errors.slow() from None
        except PoolTimeout:
            raise self._connector.cause() or errors.slow() from None
        except PoolClosed:
            raise errors.closed() from None
        except psycopg.Error as error:
            raise errors.translate(error) from None
        except UnicodeError:
            raise errors.translate(psycopg.DataError()) from None

    async def _repeated(
        self, work: Callable[[Connection], Awaitable[T]], reserved: bool, seconds: float, confirmed: bool
    ) -> T:
        deadline = asyncio.get_running_loop().time() + seconds
        tries = 0
        while True:
            tries += 1
            async with self._connection(reserved, deadline) as conn:
                try:
                    result = await self._limited(deadline, seconds, conn, in_unit(work))
                    if confirmed:
                        await self._confirm(deadline, conn)
                    return result
                except psycopg.Error as error:
                    if tries == _TRIES or not await self._worth_repeating(conn, error):
                        raise

    async def _limited(
        self, deadline: float, seconds: float, conn: Connection, work: Callable[[Connection], Awaitable[T]]
    ) -> T:
        try:
            return await within(deadline, conn, work)
        except TimeoutError:
            self._replication.note_possible_commit()
            await self._leave(deadline - seconds)
            raise
        except asyncio.CancelledError:
            self._replication.note_possible_commit()
            raise

    async def _confirm(self, deadline: float, conn: Connection) -> None:
        """Wait for the synchronous standbys; what they do not confirm says nothing about the server's health."""
        try:
            await within(deadline, conn, self._replication.confirm)
        except TimeoutError:
            raise errors.not_replicated() from None

    async def _leave(self, before: float) -> None:
        """Close the free connections, and those whose work began before then: their server does not answer either."""
        for conn in [conn for conn, since in self._in_use.items() if since <= before]:
            disconnect(conn)
        await self._drain()

    @asynccontextmanager
    async def _connection(self, reserved: bool, deadline: float) -> AsyncIterator[Connection]:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout_at(deadline):
                await stack.enter_async_context(self._turn(reserved))
                conn = await self._acquire()
            self._in_use[conn] = asyncio.get_running_loop().time()
            try:
                async with conn:
                    yield conn
            finally:
                del self._in_use[conn]
                await self._pool.putconn(conn)

    @asynccontextmanager
    async def _turn(self, reserved: bool) -> AsyncIterator[None]:
        """Wait until a connection is free, in arrival order. The pool itself cannot tell its queue from an outage."""
        slots = self._reserved if reserved and self._slots.locked() else self._slots
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await slots.acquire()
        except TimeoutError:
            raise self._connector.cause() or errors.pool_full() from None
        try:
            yield
        finally:
            slots.release()

    async def _acquire(self) -> LedgerConnection:
        """Take a connection, or wait for one to be made; for longer while no try has failed. Raises PoolTimeout."""
        for _ in range(_ACQUIRE_TRIES - 1):
            try:
                return await self._pool.getconn()
            except PoolTimeout:
                if self._connector.cause() is not None:
                    raise
        return await self._pool.getconn()

    async def _worth_repeating(self, conn: Connection, error: psycopg.Error) -> bool:
        if conn.closed:
            # Its commit may be there. A restart has closed the other connections, too: they are replaced.
            self._replication.note_possible_commit()
            await self._drain()
            return True
        if error.sqlstate == errors.READ_ONLY:
            # The others began on the same server. New ones reach its successor, or are refused by `_configure`.
            self._connector.read_only += 1
            await conn.close()
            await self._drain()
            return True
        if error.sqlstate in _STALE_PLAN:
            await conn.close()
            return True
        return error.sqlstate in _REPEATED

    async def _configure(self, conn: LedgerConnection) -> None:
        await self._connector.configure(conn)
        self._replication.observe(conn)

    async def _drain(self) -> None:
        """Close the free connections now, and those in use after their work."""
        await self._pool.drain()

    def _record(self, error: LedgerUnavailableError | None) -> None:
        """Log each change between usable and unusable, once."""
        if error is not None and not self._down:
            _log.warning("the ledger cannot be used: %s", error.message)
        elif error is None and self._down:
            _log.info("the ledger can be used again")
        self._down = error is not None

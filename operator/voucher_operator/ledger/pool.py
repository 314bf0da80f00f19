"""Connections to PostgreSQL: session limits, and work that is repeated after a lost connection, race or deadlock.

`Pool.run` and `Pool.run_unmonitored` are the only ways to a connection. Their work must be safe to repeat, because a
commit whose acknowledgement was lost is repeated: every write of the ledger is idempotent, by its key or by its owner.
See also: `errors` has the messages; `session.sql` has the limits of a session; `transactions` is for poolers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from voucher_operator import telemetry
from voucher_operator.ledger import errors
from voucher_operator.ledger.session import CLIENT_ENCODING, OPERATOR_SETTINGS, Pooler
from voucher_operator.ledger.transactions import LedgerConnection, configure, unit
from voucher_operator.resources.errors import LedgerUnavailableError

T = TypeVar("T")
Connection = psycopg.AsyncConnection[TupleRow]

_log = logging.getLogger(__name__)

ACQUIRE_SECONDS: Final = 1.5
"""How long a caller waits for a new connection after one has failed: the pool tries again after a second."""
CONNECT_SECONDS: Final = 3
"""How long one connection may take to be made. A machine under load needs more than ACQUIRE_SECONDS for it."""
_ACQUIRE_TRIES: Final = 3
"""How often ACQUIRE_SECONDS are waited while none has failed: for longer than CONNECT_SECONDS."""
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
_LINK: Final[dict[str, str | int]] = {
    "application_name": "voucher-operator",
    "client_encoding": CLIENT_ENCODING,
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Pool:
    """A few connections, which are opened again after a failure.

    `conninfo` is called at each new connection, so that a rotated password is used; every error that it raises counts
    as missing settings. `size` is the most connections at once; one more is reserved for health checks, so that a full
    pool does not look like an outage. `pooler`: whether another pool may be between this one and PostgreSQL.
    """

    def __init__(self, conninfo: Callable[[], str], size: int, pooler: Pooler = "auto") -> None:
        # Its warnings contain the server's messages, one for each try: `_record` logs one message of ours.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        self._source = conninfo
        self._cause: Exception | None = None
        self._down = False
        self._refusals = 0
        """How often a session turned out to be read-only."""
        self._pooler = pooler
        self._pooler_reported = False
        self.size = size
        self._slots = asyncio.Semaphore(size)
        self._reserved = asyncio.Semaphore(1)
        self._pool = AsyncConnectionPool(
            self._conninfo,
            connection_class=_reporting(self._set_cause),
            kwargs={"autocommit": True, "prepare_threshold": 0},
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

    async def close(self) -> None:
        """Close all connections. An event loop does not end while a pool is open."""
        await self._pool.close(timeout=5.0)

    async def run(
        self, work: Callable[[Connection], Awaitable[T]], *, reserved: bool = False, seconds: float = ANSWER_SECONDS
    ) -> T:
        """Run `work` with a connection in autocommit mode; repeat it after a lost connection or a lost race.

        `reserved` work may use the connection that is kept free for it. All of it takes `seconds` at most.

        Raises LedgerUnavailableError (LedgerBusyError: another session holds a row; NewerVersionError: only a newer
        version can read a row; PoolFullError: our connections are all in use) and RequestRejectedError.
        """
        return await self._cancellable(self._monitored(work, reserved, seconds))

    async def run_unmonitored(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the same for work that uses no object of the ledger: its failure does not make the ledger unavailable.

        It may use the reserved connection.
        """
        return await self._cancellable(self._translated(work, True, ANSWER_SECONDS))

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
        refusals = self._refusals
        try:
            result = await self._translated(work, reserved, seconds)
        except LedgerUnavailableError as error:
            telemetry.LEDGER_ERRORS.inc()
            if errors.is_outage(error):
                self._record(error)
            raise
        if refusals == self._refusals:
            # Otherwise it may have read on a session of before a server became read-only.
            self._record(None)
        return result

    async def _translated(self, work: Callable[[Connection], Awaitable[T]], reserved: bool, seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await self._repeated(work, reserved)
        except TimeoutError:
            raise errors.slow() from None
        except PoolTimeout:
            raise errors.no_connection(self._cause) from None
        except PoolClosed:
            raise errors.closed() from None
        except psycopg.Error as error:
            raise errors.translate(error) from None
        except UnicodeError:
            raise errors.translate(psycopg.DataError()) from None

    async def _repeated(self, work: Callable[[Connection], Awaitable[T]], reserved: bool) -> T:
        tries = 0
        while True:
            tries += 1
            async with self._connection(reserved) as conn:
                try:
                    async with unit(conn):
                        return await work(conn)
                except psycopg.Error as error:
                    if tries == _TRIES or not await self._worth_repeating(conn, error):
                        raise

    @asynccontextmanager
    async def _connection(self, reserved: bool) -> AsyncIterator[Connection]:
        async with self._turn(reserved):
            conn = await self._acquire()
            try:
                async with conn:
                    yield conn
            finally:
                await self._pool.putconn(conn)

    @asynccontextmanager
    async def _turn(self, reserved: bool) -> AsyncIterator[None]:
        """Wait until a connection is free, in arrival order. The pool itself cannot tell its queue from an outage."""
        slots = self._reserved if reserved and self._slots.locked() else self._slots
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await slots.acquire()
        except TimeoutError:
            raise (errors.pool_full() if self._cause is None else errors.no_connection(self._cause)) from None
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
                if self._cause is not None:
                    raise
        return await self._pool.getconn()

    async def _worth_repeating(self, conn: Connection, error: psycopg.Error) -> bool:
        if conn.closed:
            # A restart has closed the other connections, too: have the pool replace them before the next try.
            await self._pool.check()
            return True
        if error.sqlstate == errors.READ_ONLY:
            # The others began on the same server. New ones reach its successor, or are refused by `_configure`.
            self._refusals += 1
            await conn.close()
            await self._pool.drain()
            return True
        if error.sqlstate in _STALE_PLAN:
            await conn.close()
            return True
        return error.sqlstate in _REPEATED

    def _conninfo(self) -> str:
        try:
            return make_conninfo(self._source(), **_LINK)
        except Exception as error:
            self._set_cause(error)
            raise

    def _set_cause(self, error: Exception | None) -> None:
        self._cause = error

    async def _configure(self, conn: LedgerConnection) -> None:
        """Set what the session needs, and refuse one that may not write: it would stay so for as long as it lives."""
        try:
            if await configure(conn, OPERATOR_SETTINGS, self._pooler):
                self._refusals += 1
                raise psycopg.errors.ReadOnlySqlTransaction("the session is read-only")
        except Exception as error:
            self._set_cause(error)
            await conn.close()
            raise
        self._set_cause(None)
        self._report_pooler(conn)

    def _report_pooler(self, conn: LedgerConnection) -> None:
        """Log once that a pooler was found, and what is faster if it is in session mode."""
        if self._pooler == "auto" and conn.shared is not None and not self._pooler_reported:
            self._pooler_reported = True
            _log.info(
                "a connection pooler is between the operator and PostgreSQL: each transaction sets what it needs, and "
                "no statement is prepared; if every connection has a session of its own there (session mode), set "
                "VOUCHER_OPERATOR_POOLER (chart: database.pooler) to session, which is faster"
            )

    def _record(self, error: LedgerUnavailableError | None) -> None:
        """Log each change between usable and unusable, once."""
        if error is not None and not self._down:
            _log.warning("the ledger cannot be used: %s", error.message)
        elif error is None and self._down:
            _log.info("the ledger can be used again")
        self._down = error is not None


def _reporting(report: Callable[[Exception], None]) -> type[LedgerConnection]:
    """Return a connection class that reports why it could not connect; the pool itself only logs it."""

    class Reporting(LedgerConnection):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Self:
            try:
                return await super().connect(*args, **kwargs)
            except Exception as error:
                report(error)
                raise

    return Reporting

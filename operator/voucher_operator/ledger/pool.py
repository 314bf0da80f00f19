"""Connections to PostgreSQL: session limits, and work that is repeated after a lost connection, race or deadlock.

`Pool.run` and `Pool.run_unmonitored` are the only ways to a connection. Their work must be safe to repeat, because a
commit whose acknowledgement was lost is repeated: every write of the ledger is idempotent, by its key or by its owner.
See also: `errors` has the messages; `session.sql` has the limits of a session.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from voucher_operator import telemetry
from voucher_operator.ledger import errors
from voucher_operator.ledger.statements import statement
from voucher_operator.resources.errors import LedgerUnavailableError

T = TypeVar("T")
Connection = psycopg.AsyncConnection[TupleRow]

_log = logging.getLogger(__name__)

_SESSION: Final = statement("session")
ACQUIRE_SECONDS: Final = 1.5
"""How long a caller waits for a connection; the pool itself tries to connect again after a second."""
ANSWER_SECONDS: Final = 15.0
"""How long a piece of work may take with all its tries; the server's own limits (session.sql) are shorter."""
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
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Pool:
    """A few connections, which are opened again after a failure.

    `conninfo` is called at each new connection, so that a rotated password is used; every error that it raises counts
    as missing settings. `size` is the most connections at once.
    """

    def __init__(self, conninfo: Callable[[], str], size: int) -> None:
        # Its warnings contain the server's messages, one for each try: `_record` logs one message of ours.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        self._source = conninfo
        self._cause: Exception | None = None
        self._down = False
        self.size = size
        self._pool = AsyncConnectionPool(
            self._conninfo,
            connection_class=_reporting(self._set_cause),
            kwargs={"autocommit": True, "prepare_threshold": 0},
            min_size=min(2, size),
            max_size=size,
            open=False,
            configure=_configure,
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

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` with a connection in autocommit mode; repeat it after a lost connection or a lost race.

        Raises LedgerUnavailableError (LedgerBusyError: another session holds a row; NewerVersionError: only a newer
        version can read a row) and RequestRejectedError.
        """
        return await self._cancellable(self._monitored(work))

    async def run_unmonitored(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the same for work that uses no object of the ledger: its failure does not make the ledger unavailable."""
        return await self._cancellable(self._translated(work))

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

    async def _monitored(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            result = await self._translated(work)
        except LedgerUnavailableError as error:
            telemetry.LEDGER_ERRORS.inc()
            if not isinstance(error, errors.LedgerBusyError | errors.NewerVersionError):
                self._record(error)
            raise
        self._record(None)
        return result

    async def _translated(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._repeated(work)
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

    async def _repeated(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        tries = 0
        while True:
            tries += 1
            async with self._pool.connection() as conn:
                try:
                    return await work(conn)
                except psycopg.Error as error:
                    if tries == _TRIES or not await self._worth_repeating(conn, error):
                        raise

    async def _worth_repeating(self, conn: Connection, error: psycopg.Error) -> bool:
        if conn.closed:
            # A restart has closed the other connections, too: have the pool replace them before the next try.
            await self._pool.check()
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

    def _record(self, error: LedgerUnavailableError | None) -> None:
        """Log each change between usable and unusable, once."""
        if error is not None and not self._down:
            _log.warning("the ledger cannot be used: %s", error.message)
        elif error is None and self._down:
            _log.info("the ledger can be used again")
        self._down = error is not None


def _reporting(report: Callable[[Exception | None], None]) -> type[Connection]:
    """Return a connection class that reports why it could not connect; the pool itself only logs it."""

    class Reporting(psycopg.AsyncConnection[TupleRow]):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Self:
            try:
                conn = await super().connect(*args, **kwargs)
            except Exception as error:
                report(error)
                raise
            report(None)
            return conn

    return Reporting


async def _configure(conn: Connection) -> None:
    await conn.execute(_SESSION, prepare=False)

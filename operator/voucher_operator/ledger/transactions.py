"""Connections whose session may be another one in each transaction: behind a connection pooler in transaction mode.

There a setting of the session would be lost, and be found by another client; and a statement that is prepared in one
session is absent in the next, or there already (SQLSTATE 26000, 42P05). So each piece of work is one transaction that
begins with its own settings, and nothing is prepared. What work does in several transactions elsewhere, each statement
by itself, is one here.

See also: `session` has the settings; `pool` and `admin.reader` open the connections.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psycopg
from psycopg.rows import TupleRow

from voucher_operator.ledger.session import SESSION, Access, Pooler, begin, parameters

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SharedSession:
    """How the transactions of a connection begin that has another session in each of them."""

    begin: bytes
    writes: bool
    """Whether a transaction that may not write is refused."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a new session has reported."""

    read_only: bool
    server: str
    """Another one for each server and each of its starts."""


class LedgerConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection in autocommit mode; `shared` is None for one with a session of its own."""

    shared: SharedSession | None = None

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """Begin a transaction; where the session is shared, go on with that of the unit, which a Rollback begins again.

        No savepoint: what the ledger's functions ask about the transaction (`pg_current_xact_id`) differs within one.
        """
        if self.shared is None:
            async with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
            return
        try:
            # Nobody but psycopg looks into it: `Rollback(None)` ends the innermost transaction.
            yield cast("psycopg.AsyncTransaction", None)
        except psycopg.Rollback:
            await self.rollback()
            await _begin(self, self.shared)


async def configure(
    conn: LedgerConnection, settings: Mapping[str, str], pooler: Pooler = "auto", access: Access = ""
) -> Session:
    """Set what a new session needs, or note it for each transaction.

    Raises psycopg's errors.
    """
    values = parameters(settings, pooler=pooler, backend_pid=conn.info.backend_pid)
    row = await (await conn.execute(SESSION, values, prepare=False)).fetchone()
    _, read_only, shared, server = row or (None, True, False, "")
    if shared:
        conn.shared = SharedSession(begin(settings, access), writes=access != "READ ONLY")
        conn.prepare_threshold = None
    return Session(bool(read_only), str(server))


@asynccontextmanager
async def unit(conn: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """One piece of work: where the session is shared, one transaction; elsewhere each statement commits by itself.

    Raises psycopg's errors; ReadOnlySqlTransaction for a shared session that may not write, but should.
    """
    if (shared := shared_session(conn)) is None:
        yield
        return
    try:
        await _begin(conn, shared)
        yield
        await _commit(conn)
    except BaseException:
        # What was done until a failure here, not in PostgreSQL, would be committed by whoever closes the connection.
        with contextlib.suppress(psycopg.Error):
            await conn.rollback()
        raise


def in_unit(work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> Callable[[Any], Awaitable[T]]:
    """Return the same work as one `unit`."""

    async def run(conn: psycopg.AsyncConnection[Any]) -> T:
        async with unit(conn):
            return await work(conn)

    return run


@asynccontextmanager
async def next_unit(conn: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Do something after a failure, within the work that failed, that stays although the work is rolled back."""
    if shared_session(conn) is not None:
        await conn.rollback()
    async with unit(conn):
        yield


def shared_session(conn: psycopg.AsyncConnection[Any]) -> SharedSession | None:
    """Return how the transactions of a connection begin; None where the session is its own."""
    return conn.shared if isinstance(conn, LedgerConnection) else None


async def _begin(conn: psycopg.AsyncConnection[Any], shared: SharedSession) -> None:
    cursor = await conn.execute(shared.begin, prepare=False)
    while cursor.nextset():
        pass
    row = await cursor.fetchone()
    if shared.writes and (row is None or row[1]):
        raise psycopg.errors.ReadOnlySqlTransaction("the session is read-only")


async def _commit(conn: psycopg.AsyncConnection[Any]) -> None:
    if (await conn.execute(b"COMMIT", prepare=False)).statusmessage != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("a statement of this transaction has failed, and nobody said so")

"""The sessions of the commands, and the mask for codes that come from a Secret.

A command must never block the start of the Go service, which locks each table exclusively for a moment and gives up
after ten seconds. So nothing here keeps a transaction open, and every statement has a limit. The session of a command
that only reads is read-only, so that it cannot change a live ledger by mistake.

Behind a connection pooler in transaction mode no session is the command's own: what it does is done in a `unit`.

See also: `verify`, `export` and `commands`; `transactions` has `unit`; `errors` has the messages; `pool` has the
operator's sessions.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, errors

from voucher_operator.ledger.errors import no_connection, slow, translate
from voucher_operator.ledger.session import CLIENT_ENCODING
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.transactions import LedgerConnection, configure, unit
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import LedgerUnavailableError

_SECRET_CODES: Final = statement("read_secret_codes")
CONNECT_SECONDS: Final = 10
"""How long every command waits for a connection."""
STATEMENT_LIMIT: Final = 8.0
"""Longest time that a command's statement may take, in seconds: less than the ten of the Go service's start."""


@asynccontextmanager
async def read_only(
    database_url: str, name: str, *, statement_limit: float | None = None
) -> AsyncIterator[AsyncConnection[Any]]:
    """Yield a read-only session in autocommit mode, for `unit`; `name` is shown to administrators.

    `statement_limit`, in seconds, is what the user of the command chose. Raises as `command_session`.
    """
    async with command_session(database_url, name, writes=False, statement_limit=statement_limit) as connection:
        yield connection


@asynccontextmanager
async def command_session(
    database_url: str, name: str, *, writes: bool = True, statement_limit: float | None = None
) -> AsyncIterator[AsyncConnection[Any]]:
    """Yield a session in autocommit mode, for `unit`; `name` and `statement_limit` as in `read_only`.

    Raises LedgerUnavailableError when PostgreSQL cannot be reached within CONNECT_SECONDS, refuses, is not migrated, or
    takes too long; RequestRejectedError for a value that it cannot hold.
    """
    settings = {
        "default_transaction_read_only": "off" if writes else "on",
        "lock_timeout": "5s",
        "statement_timeout": f"{(statement_limit or STATEMENT_LIMIT) * 1000:.0f}ms",
        "idle_in_transaction_session_timeout": "5s",
    }
    try:
        async with await _connect(database_url, name) as connection:
            await configure(connection, settings, access="READ WRITE" if writes else "READ ONLY")
            yield connection
    except errors.QueryCanceled as error:
        raise (slow() if statement_limit is None else _too_slow(statement_limit)) from error
    except psycopg.Error as error:
        raise translate(error) from error
    except UnicodeError:
        raise translate(psycopg.DataError()) from None


async def _connect(database_url: str, name: str) -> LedgerConnection:
    try:
        return await LedgerConnection.connect(
            database_url,
            autocommit=True,
            application_name=name,
            connect_timeout=CONNECT_SECONDS,
            client_encoding=CLIENT_ENCODING,
        )
    except psycopg.Error as error:
        raise (translate(error) if error.sqlstate else no_connection(error)) from error
    except UnicodeError as error:
        raise no_connection(error) from None


@asynccontextmanager
async def limited(statement_limit: float) -> AsyncIterator[None]:
    """Stop a statement after `statement_limit` seconds by the client's clock, too.

    For a cursor WITH HOLD: PostgreSQL materializes its rows at the end of the transaction, when `statement_timeout` is
    no longer in force and the locks are still held. Raises LedgerUnavailableError.
    """
    try:
        async with asyncio.timeout(statement_limit):
            yield
    except TimeoutError:
        raise _too_slow(statement_limit) from None


def _too_slow(statement_limit: float) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"a statement took longer than {statement_limit:g} s and was stopped: allow more with "
        "--statement-limit SECONDS while no other service is about to start, or use a replica"
    )


class CodeMask:
    """Shows a code; for one that comes from a Secret, in any spelling, the Voucher that it belongs to instead."""

    def __init__(self, masks: Mapping[str, str]) -> None:
        """`masks`: normal form of a code -> what to show instead."""
        self._masks = masks

    @classmethod
    async def load(cls, connection: AsyncConnection[Any]) -> "CodeMask":
        """Read which codes are secret. Only those are held in memory."""
        async with unit(connection):
            cursor = await connection.execute(_SECRET_CODES)
        return cls({normal_code(code): f"<secret {owner}>" async for code, owner in cursor})

    def code(self, code: str) -> str:
        """Return what to show for a code."""
        return self._masks.get(normal_code(code), code)

    def reason(self, reason: str) -> str:
        """Return what to show for a ledger entry's reason, which may be `promo:<CODE>`."""
        prefix, colon, code = reason.partition(":")
        return f"promo:{self.code(code)}" if colon and prefix == "promo" else reason

"""Refuses to migrate through a connection pooler in transaction mode.

A migration holds an advisory lock of its session, and its sessions act as another role and with settings of their own.
In transaction mode the lock would stay in a session of the pooler, and no migration could run until that one ends.

See also: `migrate` calls it first; `ledger.transactions` is how the operator itself works behind such a pooler.
"""

import secrets
from typing import Any, Final

import psycopg

from voucher_operator.ledger.schema.session import MigrationError, Plan, open_connection

_TRIES: Final = 5
"""The pooler chooses the session, so that one try may meet the same one twice by chance."""
_MARK: Final = "SELECT set_config('vouchers.session', %s, false)"
_READ: Final = "SELECT current_setting('vouchers.session', true)"


def require_own_session(plan: Plan) -> None:
    """Return when each connection has a session of its own: PostgreSQL's, or that of a pooler in session mode.

    Raises MigrationError otherwise, and psycopg's errors.
    """
    with open_connection(plan) as one:
        if _value(one, "SELECT pg_backend_pid()") == one.info.backend_pid:
            return
        with open_connection(plan) as other:
            if any(_shared(one, other) for _ in range(_TRIES)):
                raise MigrationError(
                    "a connection pooler in transaction mode is between migrate and PostgreSQL, and a migration needs "
                    "sessions of its own: give it the address of PostgreSQL itself (chart: migration.host and "
                    "migration.port)"
                )


def _shared(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Whether `other` finds a mark in the session that `one` has just used, or `one` does not find it any more."""
    mark = secrets.token_hex(8)
    one.execute(_MARK, (mark,))
    with other.transaction():
        return bool(_value(other, _READ) == mark or _value(one, _READ) != mark)


def _value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row and row[0]

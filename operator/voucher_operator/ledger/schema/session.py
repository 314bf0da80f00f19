"""The sessions of a migration: how long they wait for others, and what is said when that is not enough.

Every attempt waits at most a second for a lock and then lets everybody through before it tries again: the Go service's
start-up needs the same locks and has ten seconds. PostgreSQL's messages may hold a password (that of a connection
string which libpq cannot read) or a row's values: none is passed on but for names of things in the schema.

See also: `migrate` applies the files and `backfill` sums up, both on these sessions; `errors` words what any session
may meet.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from voucher_operator.ledger.admin.reader import CONNECT_SECONDS
from voucher_operator.ledger.errors import no_connection, translate
from voucher_operator.ledger.session import CLIENT_ENCODING, SESSION, parameters
from voucher_operator.ledger.statements import statement
from voucher_operator.resources.errors import OperatorError, TerminalError
from voucher_operator.resources.reasons import Reason

T = TypeVar("T")

log = logging.getLogger(__name__)

_BLOCKERS: Final = statement("migrate_blockers")
APPLICATION_NAME: Final = "voucher-operator migrate"
STATEMENT_SECONDS: Final = 5
"""Longest time that a statement may take: half of what the Go service's start-up has."""

_SESSION = {
    "default_transaction_read_only": "off",
    "lock_timeout": "1s",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "idle_in_transaction_session_timeout": "10s",
}
# Locks held by others, and what two CREATE IF NOT EXISTS (ours and the Go service's) say to each other when they meet.
_PASSING = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateColumn,
    errors.InternalError_,
)


class MigrationError(TerminalError):
    """The migration cannot go on until somebody acts; the message says what to do. Nothing is half-applied."""

    reason = Reason.LEDGER_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Plan:
    """What the caller wants; `patience` is in seconds, `acting_as` the role that shall own all, None if not known."""

    database_url: str
    currency: str
    minor_digits: int
    runtime_role: str
    patience: float
    acting_as: str | None = None


def connect(plan: Plan, session: Mapping[str, str] | None = None) -> psycopg.Connection[Any]:
    """Open a session in autocommit mode, with its usual settings and those of `session`. Raises psycopg's errors."""
    connection = psycopg.connect(
        plan.database_url,
        autocommit=True,
        application_name=APPLICATION_NAME,
        connect_timeout=CONNECT_SECONDS,
        client_encoding=CLIENT_ENCODING,
    )
    try:
        connection.execute(SESSION, parameters({**_SESSION, **(session or {})}))
        if plan.acting_as is not None:
            connection.execute("SELECT set_config('role', %s, false)", (plan.acting_as,))
    except BaseException:
        connection.close()
        raise
    connection.add_notice_handler(_pass_on)
    return connection


def _pass_on(notice: errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


def retry_on_lock(plan: Plan, what: str, attempt: Callable[[], T]) -> T:
    """Make `attempt` until it works or patience ends. Between two, nothing is held: those who queued behind get on.

    `what` names it for people. Raises MigrationError, which names who holds the locks.
    """
    deadline = time.monotonic() + plan.patience
    pauses = chain((0.2, 0.5, 1.0), repeat(2.0))
    while True:
        try:
            return attempt()
        except _PASSING as error:
            pause = next(pauses)
            if time.monotonic() + pause > deadline:
                raise _gave_up(plan, what, error) from error
            log.info("%s waits for others: %s", what, error.diag.message_primary or "rows are held")
            time.sleep(pause)


def _gave_up(plan: Plan, what: str, error: psycopg.Error) -> MigrationError:
    with connect(plan) as connection:
        rows = connection.execute(_BLOCKERS).fetchall()
    holders = "; ".join(f"pid {pid} ({state or 'unknown'}, {app}) on {tables}" for pid, app, state, tables in rows)
    return MigrationError(
        f"{what} gave up after {plan.patience:g} s: {error.diag.message_primary or 'rows are held by others'}. "
        f"Sessions that hold locks: {holders or 'none now'}. End them or let them finish, then migrate again"
    )


def translate_error(error: psycopg.Error | UnicodeError) -> OperatorError:
    """Our error for one that nobody expected: without values of rows, and without the connection string."""
    if isinstance(error, UnicodeError) or not error.sqlstate:
        return no_connection(error)
    if isinstance(error, errors.QueryCanceled):
        return MigrationError(f"a statement {TOO_SLOW}: migrate again when PostgreSQL has less to do")
    if isinstance(error, psycopg.OperationalError):
        return translate(error)
    # Class 42 (syntax, names, rights) speaks of the schema alone.
    names = f": {error.diag.message_primary}" if error.sqlstate.startswith("42") else ""
    return MigrationError(f"PostgreSQL refuses a statement (SQLSTATE {error.sqlstate}){names}; look into its log")


TOO_SLOW: Final = f"took longer than the {STATEMENT_SECONDS} s that a migration allows itself, or was cancelled"

"""The sessions of a migration: how long they wait for locks, and the message when that is not enough.

Every attempt waits at most a second for a lock, and then releases all its locks before it tries again: the Go service's
start needs the same locks and has ten seconds. PostgreSQL's messages may contain a password (that of a connection
string which libpq cannot read) or the values of a row. So none is shown, except the names of objects in the schema.

See also: `migrate` and `backfill` use these sessions; `errors` has the messages of all sessions.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

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
"""Longest time that a statement may take: half of what the Go service's start has."""

_SESSION = {
    "default_transaction_read_only": "off",
    "lock_timeout": "1s",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "idle_in_transaction_session_timeout": "10s",
}
# Locks of other sessions, and the errors of two concurrent CREATE IF NOT EXISTS (ours and the Go service's).
_TRANSIENT = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateColumn,
    errors.InternalError_,
)


class MigrationError(TerminalError):
    """The migration cannot continue until an administrator acts, as the message says. No file is partly applied."""

    reason = Reason.LEDGER_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a migration; `acting_as` is the role that shall own everything, None while it is not known."""

    database_url: str
    currency: str
    minor_digits: int
    runtime_role: str
    retry_seconds: float
    acting_as: str | None = None


def connect(plan: Plan, session: Mapping[str, str] | None = None) -> psycopg.Connection[Any]:
    """Open a session in autocommit mode, with its usual settings and those of `session`. Raises psycopg's errors."""
    connection = open_connection(plan)
    try:
        connection.execute(SESSION, parameters({**_SESSION, **(session or {})}))
        if plan.acting_as is not None:
            connection.execute("SELECT set_config('role', %s, false)", (plan.acting_as,))
    except BaseException:
        connection.close()
        raise
    connection.add_notice_handler(_log_warning)
    return connection


def open_connection(plan: Plan) -> psycopg.Connection[Any]:
    """Open a session in autocommit mode, as it is. Raises psycopg's errors."""
    return psycopg.connect(
        plan.database_url,
        autocommit=True,
        application_name=APPLICATION_NAME,
        connect_timeout=CONNECT_SECONDS,
        client_encoding=CLIENT_ENCODING,
    )


def _log_warning(notice: errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


def retry_on_lock(plan: Plan, what: str, attempt: Callable[[], T]) -> T:
    """Call `attempt` until it succeeds or `plan.retry_seconds` are over. Between two attempts no lock is held.

    `what` names it in messages. Raises MigrationError, which names the sessions that hold the locks.
    """
    deadline = time.monotonic() + plan.retry_seconds
    pauses = chain((0.2, 0.5, 1.0), repeat(2.0))
    while True:
        try:
            return attempt()
        except _TRANSIENT as error:
            pause = next(pauses)
            if time.monotonic() + pause > deadline:
                raise _gave_up(plan, what, error) from error
            log.info("%s waits for other sessions: %s", what, error.diag.message_primary or "rows are locked")
            time.sleep(pause)


def _gave_up(plan: Plan, what: str, error: psycopg.Error) -> MigrationError:
    with connect(plan) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_BLOCKERS).fetchall()
    holders = "; ".join("pid {pid} ({state}, {application}) on {tables}".format_map(row) for row in rows)
    return MigrationError(
        f"{what} gave up after {plan.retry_seconds:g} s: "
        f"{error.diag.message_primary or 'rows are locked by other sessions'}. "
        f"Sessions that hold locks: {holders or 'none now'}. End them or let them finish, then migrate again"
    )


def translate_error(error: psycopg.Error | UnicodeError) -> OperatorError:
    """Return our error for an unexpected one of psycopg: without values of rows, and without the connection string."""
    if isinstance(error, UnicodeError) or not error.sqlstate:
        return no_connection(error)
    if isinstance(error, errors.QueryCanceled):
        return MigrationError(f"a statement {TOO_SLOW}: migrate again when PostgreSQL has less load")
    if isinstance(error, psycopg.OperationalError):
        return translate(error)
    # Messages of class 42 (syntax, names, rights) name objects of the schema only.
    names = f": {error.diag.message_primary}" if error.sqlstate.startswith("42") else ""
    return MigrationError(f"PostgreSQL refuses a statement (SQLSTATE {error.sqlstate}){names}; check its log")


TOO_SLOW: Final = f"took longer than the {STATEMENT_SECONDS} s that a migration allows itself, or was cancelled"

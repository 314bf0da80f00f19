"""The ledger's own errors, and the translation of PostgreSQL's into them: by SQLSTATE, not by text.

PostgreSQL's messages may contain codes, names and addresses, and differ from one try to the next, so none is shown:
each message here is one constant line that says what to do. See also: `pool` translates; `batch` isolates what is busy.
"""

from typing import Final

import psycopg

from voucher_operator.resources.errors import LedgerUnavailableError, OperatorError, RequestRejectedError


class LedgerBusyError(LedgerUnavailableError):
    """Another session holds a row for longer than `lock_timeout`."""


class NewerVersionError(LedgerUnavailableError):
    """A row has a value that only a newer version of the operator knows; every other row can be read."""


class NotReplicatedError(LedgerUnavailableError):
    """A commit has not reached a synchronous standby in time; PostgreSQL itself answers."""


class PoolFullError(LedgerUnavailableError):
    """All connections of this process are in use; PostgreSQL itself answers."""


_BUSY: Final = (
    "Another session holds a row of the ledger: end that session if it is idle in a transaction. This is retried."
)
_UNREACHABLE: Final = "PostgreSQL cannot be reached: check that it runs and that the database settings are right."
_LOGIN: Final = "PostgreSQL refuses the login: check user and password in the database settings."
_NO_DATABASE: Final = "PostgreSQL has no such database: create it, or correct the database settings."
_SETTINGS: Final = "The database settings are missing or incomplete: check the Secret that they are mounted from."
_MIGRATE: Final = "The ledger's schema is missing or out of date: run `voucher-operator migrate`."
_RIGHTS: Final = "The database role lacks rights on the ledger: run `voucher-operator migrate` for this runtime role."
_READ_ONLY: Final = "PostgreSQL is read-only: point the database settings at the primary."
_NO_CONNECTIONS: Final = (
    "PostgreSQL has no connection left: raise its max_connections or lower the operator's pool size."
)
_POOL_FULL: Final = (
    "All of the operator's connections to PostgreSQL are in use: raise its pool size, or end a session that holds "
    "locks. This is retried."
)
_NOT_REPLICATED: Final = (
    "PostgreSQL has not replicated a commit to its synchronous standby in time: check its standbys. This is retried."
)
_SHUTTING_DOWN: Final = "the database system is shutting down"
_ANSWERED: Final = "FATAL:"
_ABSENT: Final = ("Connection refused", "No route to host", "server closed the connection unexpectedly")
_POOLER: Final = (
    "A connection pooler gives each transaction another session of PostgreSQL: set VOUCHER_OPERATOR_POOLER (chart: "
    "database.pooler) to transaction, or connect to PostgreSQL itself."
)
_POOLER_REFUSES: Final = (
    "The connection pooler refuses the operator: check its log, the size of its pools, and that its mode is "
    "transaction or session."
)
_STARTUP: Final = (
    "The connection pooler takes no startup parameters: remove options from the database settings, and PGOPTIONS from "
    "the environment."
)
_FULL: Final = "PostgreSQL is out of disk space or memory: add more."
_SLOW: Final = "PostgreSQL did not answer in time: check its load and its network."
_CLOSED: Final = "The ledger is closed: the operator is stopping."
_NEWER: Final = "A newer version of the operator has settled this purchase: upgrade this one."

READ_ONLY: Final = "25006"
"""SQLSTATE of a write in a session that may not write."""
_CONTENDED: Final = frozenset({"55P03", "57014", "40001", "40P01", "23503", "23505"})
"""Lock or statement time-out, and races that were lost several times in a row."""
_BY_STATE: Final = {
    "08P01": _POOLER_REFUSES,
    "26000": _POOLER,
    "3D000": _NO_DATABASE,
    "3F000": _MIGRATE,
    READ_ONLY: _READ_ONLY,
    "42501": _RIGHTS,
    "42703": _MIGRATE,
    "42883": _MIGRATE,
    "42P01": _MIGRATE,
    "42P05": _POOLER,
    "42704": _MIGRATE,
    "53300": _NO_CONNECTIONS,
}
_BY_CLASS: Final = {"08": _UNREACHABLE, "28": _LOGIN, "53": _FULL, "57": _UNREACHABLE}

# A failed login has no SQLSTATE in libpq's error, only the server's message.
_BY_TEXT: Final = (
    ("authentication failed", _LOGIN),
    ("no password supplied", _LOGIN),
    ("no pg_hba.conf entry", _LOGIN),
    ("is not permitted to log in", _LOGIN),
    ("too many connections", _NO_CONNECTIONS),
    ("too many clients", _NO_CONNECTIONS),
    ("connection slots are reserved", _NO_CONNECTIONS),
    # PgBouncer's own.
    ("unsupported startup parameter", _STARTUP),
    ("no such database", _NO_DATABASE),
    ("no more connections allowed", _POOLER_REFUSES),
    ("query_wait_timeout", _POOLER_REFUSES),
)


def slow() -> LedgerUnavailableError:
    """Return the error for a PostgreSQL that does not answer."""
    return LedgerUnavailableError(_SLOW)


def pool_full() -> PoolFullError:
    """No connection became free in time."""
    return PoolFullError(_POOL_FULL)


def not_replicated() -> NotReplicatedError:
    """Return the error for a commit that a failover may lose."""
    return NotReplicatedError(_NOT_REPLICATED)


def is_shutting_down(error: Exception) -> bool:
    """Whether a server has refused a connection because it shuts down: the open ones may live on for minutes."""
    return _SHUTTING_DOWN in str(error)


def is_unreachable(error: Exception) -> bool:
    """Whether a connection failed because no server listens there.

    Nothing else counts: no time limit (a server under load), login, certificate, name or limit of this process.
    """
    text = str(error)
    return isinstance(error, psycopg.OperationalError) and _ANSWERED not in text and any(w in text for w in _ABSENT)


def is_outage(error: LedgerUnavailableError) -> bool:
    """Whether the whole ledger is unavailable; False when one row, or this process's own connections, are busy."""
    return not isinstance(error, LedgerBusyError | NewerVersionError | NotReplicatedError | PoolFullError)


def closed() -> LedgerUnavailableError:
    """Return the error for a ledger that is closed."""
    return LedgerUnavailableError(_CLOSED)


def newer_version() -> NewerVersionError:
    """Return the error for a purchase that only a newer version can process."""
    return NewerVersionError(_NEWER)


def schema_missing() -> LedgerUnavailableError:
    """Return the error for tables without the rows that `migrate` inserts."""
    return LedgerUnavailableError(_MIGRATE)


def no_connection(cause: Exception) -> LedgerUnavailableError:
    """Return the error for a connection that could not be made, from the error of the last try."""
    if isinstance(cause, psycopg.Error) and (line := _BY_STATE.get(cause.sqlstate or "")):
        return LedgerUnavailableError(line)
    if not isinstance(cause, psycopg.OperationalError):
        return LedgerUnavailableError(_SETTINGS)
    text = str(cause)
    if 'database "' in text and '" does not exist' in text:
        return LedgerUnavailableError(_NO_DATABASE)
    return LedgerUnavailableError(next((line for words, line in _BY_TEXT if words in text), _UNREACHABLE))


def translate(error: psycopg.Error) -> OperatorError:
    """Return our error for one of psycopg's: transient, unless the request's own values cannot be stored."""
    state = error.sqlstate or ""
    if state in _CONTENDED:
        return LedgerBusyError(_SLOW if state == "57014" else _BUSY)
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError) or state.startswith("54"):
        return RequestRejectedError(
            "The ledger cannot store a value of this resource: check for control characters and amounts out of range."
        )
    if line := _BY_STATE.get(state) or _BY_CLASS.get(state[:2]):
        return LedgerUnavailableError(line)
    if isinstance(error, psycopg.OperationalError) and not state:
        return LedgerUnavailableError(_UNREACHABLE)
    return LedgerUnavailableError(f"PostgreSQL refuses a statement (SQLSTATE {state or 'unknown'}): check its log.")

"""Brings the ledger's schema up to date: `voucher-operator migrate`.

The plain SQL files in `migrations/` (linked into this package) are applied by yoyo. What differs from its defaults:

- a migration and its mark in yoyo's table are one transaction: a kill at any moment leaves either both or neither;
- yoyo's lock is a row that outlives its process. Ours is a session's advisory lock, on a connection of its own, which
  ends with the process;
- yoyo's tables live in the schema `vouchers`, while the migrations speak to the Go billing service's, in `public`;
- every attempt waits at most a second for a lock and then lets everybody through before it tries again: the Go
  service's start-up needs the same locks and has ten seconds.

yoyo splits the files with sqlparse, which keeps dollar-quoted bodies whole; a test holds it to that.

Neighbours: `statements` loads the SQL used here; `api` works on the schema; `verify` checks what is in it.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, cast

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import topological_sort

from voucher_operator.ledger.statements import statement
from voucher_operator.resources.errors import CurrencyMismatchError, LedgerUnavailableError, TerminalError
from voucher_operator.resources.money import minor_digits
from voucher_operator.resources.reasons import Reason

log = logging.getLogger(__name__)

APPLICATION_NAME = "voucher-operator migrate"
ADVISORY_LOCK = int.from_bytes(b"vouchers", "big")
"""Held by the one migration that is at work in a database."""
PATIENCE = 60.0
"""How long one migration is tried again while others hold its locks, in seconds."""

_SESSION = "SET lock_timeout = '1s'; SET statement_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'"
# The lock's session has nothing to send while the other one works: keepalives tell the server when our machine is gone.
_LOCK_SESSION = (
    "SET lock_timeout = '150s'; "
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)
# Locks held by others, and what two CREATE IF NOT EXISTS (ours and the Go service's) say to each other when they meet.
_PASSING = (
    errors.LockNotAvailable,
    errors.QueryCanceled,
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
class _Plan:
    """What the caller wants."""

    database_url: str
    currency: str
    minor_digits: int
    runtime_role: str
    patience: float


async def migrate(database_url: str, *, currency: str, runtime_role: str, patience: float = PATIENCE) -> list[str]:
    """Apply what is missing, re-apply the runtime role's grants, and return the ids of the migrations applied.

    `database_url` is a libpq URL of the role that owns (or shall own) the tables; `patience` is in seconds. Safe to run
    any number of times, two at once, and while other services work on the tables.

    Raises CurrencyMismatchError when the ledger counts in another currency, MigrationError when somebody must act,
    LedgerUnavailableError when PostgreSQL cannot be reached.
    """
    try:
        plan = _Plan(database_url, currency, minor_digits(currency), runtime_role, patience)
    except ValueError as error:
        raise MigrationError(str(error)) from None
    return await asyncio.to_thread(_migrate, plan)


def _migrate(plan: _Plan) -> list[str]:
    try:
        with _only_one(plan):
            _prepare(plan)
            return _apply_all(plan)
    except psycopg.OperationalError as error:
        raise LedgerUnavailableError(f"PostgreSQL is not available: {error}") from error
    except psycopg.Error as error:
        raise MigrationError(f"PostgreSQL refuses a statement: {error}") from error


def _connect(plan: _Plan, session: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(
        plan.database_url, autocommit=True, application_name=APPLICATION_NAME, connect_timeout=10
    )
    connection.execute(session)
    connection.add_notice_handler(_pass_on)
    return connection


def _pass_on(notice: errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


@contextmanager
def _only_one(plan: _Plan) -> Iterator[None]:
    """Hold the advisory lock on a connection that does nothing else: it ends with this process, however that ends."""
    with _connect(plan, _LOCK_SESSION) as connection:
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
        except errors.LockNotAvailable as error:
            raise MigrationError(
                "another migration of this database does not come to an end: look at its log"
            ) from error
        yield


def _prepare(plan: _Plan) -> None:
    """Refuse what cannot work before anything is changed; make what the first migration needs."""
    with _connect(plan, _SESSION) as connection, connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement("migrate_preflight"), {"runtime_role": plan.runtime_role})
        facts = cast("dict[str, Any]", cursor.fetchone())
        for problem in _problems(facts):
            raise MigrationError(problem)
        if facts["has_sovereign"]:
            _check_currency(plan, connection)
        if not facts["role_exists"]:
            _create_role(plan.runtime_role, connection, allowed=facts["may_create_role"])
        # Not CREATE SCHEMA IF NOT EXISTS alone: that asks for a right on the database even when there is nothing to do.
        if not facts["has_schema"]:
            connection.execute("CREATE SCHEMA IF NOT EXISTS vouchers")


def _problems(facts: dict[str, Any]) -> Iterator[str]:
    role = facts["role"]
    if facts["read_only"]:
        yield "this server is a read-only standby: give the address of the primary"
    if facts["home"] != "public":
        yield (
            f"role {role} has the default schema {facts['home']}, but the billing service's tables belong in public: "
            f"run ALTER ROLE {role} SET search_path TO public"
        )
    if facts["not_tables"]:
        yield f"not tables: {', '.join(facts['not_tables'])}; the billing service's tables have these names"
    if facts["not_owned"]:
        yield f"role {role} does not own {', '.join(facts['not_owned'])}: migrate as the role that does"
    if facts["schema_not_owned"]:
        yield f"role {role} does not own the schema vouchers: migrate as the role that does"
    if facts["cannot_create_schema"]:
        yield f'role {role} may not create a schema: GRANT CREATE ON DATABASE "{facts["database"]}" TO "{role}"'
    if facts["cannot_create_tables"]:
        yield f'role {role} may not create tables: GRANT CREATE ON SCHEMA public TO "{role}"'


def _check_currency(plan: _Plan, connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SELECT currency, minor_digits FROM vouchers.sovereign").fetchone()
    if row is not None and row != (plan.currency, plan.minor_digits):
        raise CurrencyMismatchError(
            f"this ledger counts in {row[0]} with {row[1]} decimals, fixed by its first migration: "
            f"it cannot become {plan.currency} with {plan.minor_digits}"
        )


def _create_role(name: str, connection: psycopg.Connection[Any], *, allowed: bool) -> None:
    command = sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name))
    if not allowed:
        raise MigrationError(
            f"the runtime role does not exist and may not be created from here: run, as an administrator, "
            f"{command.as_string(connection).replace('NOLOGIN', 'LOGIN')}; and then migrate again"
        )
    try:
        connection.execute(command)
    except (errors.DuplicateObject, errors.UniqueViolation):
        log.info("runtime role was created by somebody else meanwhile")


def _apply_all(plan: _Plan) -> list[str]:
    logging.getLogger("yoyo.migrations").setLevel(logging.WARNING)  # it counts steps; we say what was applied
    migrations = read_migrations("package:voucher_operator:migrations")
    if not migrations:
        raise MigrationError("this installation has no migrations in it: install it anew, from a whole checkout")
    with _Backend.open(plan) as backend:
        backend.ensure_internal_schema_updated()
        done = set(backend.get_applied_migration_hashes())
        missing = [m for m in topological_sort(migrations) if m.hash not in done]
        for migration in missing:
            _apply(backend, migration, plan, mark=True)
        for migration in migrations.post_apply:
            _apply(backend, migration, plan, mark=False)
    return [str(migration.id) for migration in missing]


def _apply(backend: "_Backend", migration: Any, plan: _Plan, *, mark: bool) -> None:
    """Try until it works or patience ends. Between attempts we hold nothing: those who queued behind us get on."""
    deadline = time.monotonic() + plan.patience
    for pause in chain((0.2, 0.5, 1.0), repeat(2.0)):
        try:
            backend.apply_one(migration, mark=mark)
        except _PASSING as error:
            if time.monotonic() + pause > deadline:
                raise MigrationError(_gave_up(migration, plan, error)) from error
            log.info("%s waits for others: %s", migration.id, error.diag.message_primary)
            time.sleep(pause)
        else:
            log.info("%s is applied", migration.id)
            return


def _gave_up(migration: Any, plan: _Plan, error: psycopg.Error) -> str:
    with _connect(plan, _SESSION) as connection:
        rows = connection.execute(statement("migrate_blockers")).fetchall()
    holders = "; ".join(f"pid {pid} ({state or 'unknown'}, {app}) on {tables}" for pid, app, state, tables in rows)
    return (
        f"migration {migration.id} gave up after {plan.patience:g} s: {error.diag.message_primary}. "
        f"Sessions that hold locks: {holders or 'none now'}. End them or let them finish, then migrate again"
    )


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo is not typed
    """One connection for yoyo: its tables in the schema `vouchers`, a migration and its mark in one transaction."""

    schema = "vouchers"

    @classmethod
    def open(cls, plan: _Plan) -> "_Backend":
        """Connect. Deliberately without yoyo's `init_database`, which makes its lock table and a scratch table."""
        settings = {
            "vouchers.currency": plan.currency,
            "vouchers.minor_digits": str(plan.minor_digits),
            "vouchers.runtime_role": plan.runtime_role,
        }
        uri = DatabaseURI("postgresql+psycopg", None, None, None, None, None, {"plan": plan, "settings": settings})
        return cls(uri, "_yoyo_migration")

    def connect(self, dburi: Any) -> psycopg.Connection[Any]:
        connection = _connect(dburi.args["plan"], _SESSION)
        for name, value in dburi.args["settings"].items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        return connection

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002 - yoyo's signature
        yield  # the advisory lock is held by our caller

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:
        with self.transaction():
            # The triggers' functions take this path with them.
            self.execute("SET LOCAL search_path TO public, pg_temp")
            migration.process_steps(self, "apply", force=force)
            self.execute("SET LOCAL search_path TO vouchers")
            if mark:
                self.mark_one(migration, log=False)

"""Brings the ledger's schema up to date: `voucher-operator migrate`.

The plain SQL files in `migrations/` (linked into this package) are applied by yoyo. What differs from its defaults:

- a migration and its mark in yoyo's table are one transaction: a kill at any moment leaves either both or neither;
- yoyo's lock is a row that outlives its process. Ours is a session's advisory lock, on a connection of its own, which
  ends with the process;
- yoyo's tables are in the schema `vouchers`, while the migrations change the Go billing service's, in `public`;
- only the indexes take longer on a larger ledger; `backfill` adds up the old entries afterwards.

yoyo splits the files with sqlparse, which keeps dollar-quoted bodies whole; a test checks that.

See also: `preflight` checks before anything is changed; `shapes` compares the database with what is expected; `session`
has the sessions and how long they wait; `backfill` does what grows with the ledger.
"""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import topological_sort

from voucher_operator.ledger.schema.account_backfill import open_accounts
from voucher_operator.ledger.schema.backfill import backfill
from voucher_operator.ledger.schema.pooler import require_own_session
from voucher_operator.ledger.schema.preflight import is_newer, prepare
from voucher_operator.ledger.schema.session import (
    TOO_SLOW,
    MigrationError,
    Plan,
    connect,
    retry_on_lock,
    translate_error,
)
from voucher_operator.ledger.schema.shapes import check_after
from voucher_operator.resources.money import minor_digits

log = logging.getLogger(__name__)

ADVISORY_LOCK = int.from_bytes(b"vouchers", "big")
"""Held by the one migration that runs in a database."""
RETRY_SECONDS = 60.0
"""How long one migration file is retried while other sessions hold its locks."""

# This session sends nothing while the other one works: by keepalives the server notices that our machine is lost.
_LOCK_SESSION = {
    "lock_timeout": "150s",
    "statement_timeout": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


async def migrate(
    database_url: str, *, currency: str, runtime_role: str, retry_seconds: float = RETRY_SECONDS
) -> list[str]:
    """Apply what is missing, re-apply the runtime role's grants, and return the ids of the migrations applied.

    `database_url` is a libpq URL of the role that owns (or shall own) the tables; `retry_seconds` is how long a file is
    retried while other sessions hold its locks. Safe to run any number of times, two at once, and while other services
    use the tables.

    Raises CurrencyMismatchError when the ledger has another currency, MigrationError when an administrator must act,
    LedgerUnavailableError when PostgreSQL cannot be reached.
    """
    try:
        plan = Plan(database_url, currency, minor_digits(currency), runtime_role, retry_seconds)
    except ValueError as error:
        raise MigrationError(str(error)) from None
    return await asyncio.to_thread(_migrate, plan)


def _migrate(plan: Plan) -> list[str]:
    try:
        require_own_session(plan)
        with _only_one(plan):
            migrations = _read()
            known = {migration.id for migration in migrations}
            acting = prepare(plan, known)
            applied = _apply_all(acting, migrations)
            if not is_newer(acting, known):
                check_after(acting)
            backfill(acting)
            open_accounts(acting)
            return applied
    except (psycopg.Error, UnicodeError) as error:
        raise translate_error(error) from None


@contextmanager
def _only_one(plan: Plan) -> Iterator[None]:
    """Hold the advisory lock on a connection of its own: the lock ends with this process, also after a kill."""
    with connect(plan, _LOCK_SESSION) as connection:
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
        except errors.LockNotAvailable as error:
            raise MigrationError("another migration of this database does not finish: check its log") from error
        yield


def _read() -> Any:
    """Return this version's migrations, yoyo's list of them."""
    logging.getLogger("yoyo.migrations").setLevel(logging.WARNING)  # it logs steps; we log what was applied
    migrations = read_migrations("package:voucher_operator:migrations")
    if not migrations:
        raise MigrationError("this installation contains no migrations: install it again, from a complete checkout")
    return migrations


def _apply_all(plan: Plan, migrations: Any) -> list[str]:
    with _Backend.open(plan) as backend:
        backend.ensure_internal_schema_updated()
        done = set(backend.get_applied_migration_hashes())
        missing = [m for m in topological_sort(migrations) if m.hash not in done]
        for migration in missing:
            _apply(backend, migration, plan, mark=True)
        for migration in migrations.post_apply:
            _apply(backend, migration, plan, mark=False)
    return [str(migration.id) for migration in missing]


def _apply(backend: "_Backend", migration: Any, plan: Plan, *, mark: bool) -> None:
    def attempt() -> None:
        backend.apply_one(migration, mark=mark)

    try:
        retry_on_lock(plan, f"migration {migration.id}", attempt)
    except errors.QueryCanceled as error:
        raise MigrationError(f"migration {migration.id} {TOO_SLOW}: {_way_out(migration)}") from error
    log.info("%s is applied", migration.id)


def _way_out(migration: Any) -> str:
    """Return what to do about a file that is too slow. An index may be built by hand, without blocking writes."""
    code = re.sub(r"^--.*\n", "", Path(migration.path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    index = re.fullmatch(r"CREATE INDEX IF NOT EXISTS ([^;]*);", " ".join(code.split()))
    if index is None:
        return "migrate again when PostgreSQL has less load"
    return (
        "run, as the tables' owner and when the Go service is not about to start, "
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index[1]}; and then migrate again"
    )


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo is not typed
    """One connection for yoyo: its tables in the schema `vouchers`, a migration and its mark in one transaction."""

    schema = "vouchers"

    @classmethod
    def open(cls, plan: Plan) -> "_Backend":
        """Connect. Deliberately without yoyo's `init_database`, which creates its lock table and a scratch table."""
        settings = {
            "vouchers.currency": plan.currency,
            "vouchers.minor_digits": str(plan.minor_digits),
            "vouchers.runtime_role": plan.runtime_role,
        }
        uri = DatabaseURI("postgresql+psycopg", None, None, None, None, None, {"plan": plan, "settings": settings})
        return cls(uri, "_yoyo_migration")

    def connect(self, dburi: Any) -> psycopg.Connection[Any]:
        connection = connect(dburi.args["plan"])
        for name, value in dburi.args["settings"].items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        return connection

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002 - yoyo's signature
        yield  # the advisory lock is held by our caller

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:
        with self.transaction():
            # The functions of the triggers are created with this path (SET search_path FROM CURRENT).
            self.execute("SET LOCAL search_path TO public, pg_temp")
            migration.process_steps(self, "apply", force=force)
            self.execute("SET LOCAL search_path TO vouchers")
            if mark:
                self.mark_one(migration, log=False)

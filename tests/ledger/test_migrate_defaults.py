"""Defaults of the database or of a role do not reach what a command does."""

import asyncio
import io
import threading
from collections.abc import Iterator

import psycopg
import pytest

from testbed.postgres import OWNER, RUNTIME, Database
from testbed.processes import wait_until
from tests.ledger.go_service import STARTUP, GoService
from tests.ledger.helpers import ON_POSTGRESQL_16
from tests.ledger.ledger_rows import fill
from voucher_operator.ledger.admin.export import export
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema import migrate as migration
from voucher_operator.ledger.schema.backfill import backfill
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.preflight import prepare
from voucher_operator.ledger.schema.session import APPLICATION_NAME, MigrationError, Plan
from voucher_operator.resources.errors import LedgerUnavailableError

pytestmark = ON_POSTGRESQL_16

DEFAULTS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "30ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "20ms",
    "row_security": "off",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "DateStyle": "German",
    "TimeZone": "Asia/Muscat",
    "client_min_messages": "error",
}


@pytest.fixture
def admin(empty_database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database.admin_url, autocommit=True) as connection:
        yield connection


def set_defaults(admin: psycopg.Connection, database: Database, defaults: dict[str, str]) -> None:
    for name, value in defaults.items():
        admin.execute(f"ALTER DATABASE {database.name} SET {name} = '{value}'".encode())


def go_tables(database: Database) -> None:
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("SET default_transaction_read_only = off")
        for statement in STARTUP:
            owner.execute(statement.encode())


async def test_commands_ignore_hostile_database_defaults(empty_database: Database, admin: psycopg.Connection) -> None:
    async with GoService.connect(empty_database.owner_url) as go:
        await go.start()
        await go.issue("before", 5)
        await go.redeem(await go.customer("first"), "before")
    set_defaults(admin, empty_database, DEFAULTS)
    assert await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    assert await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME) == []
    assert await verify(empty_database.runtime_url) == []
    out = io.StringIO()
    assert await export(empty_database.runtime_url, "entries", "jsonl", out) == 1
    assert '"amount_minor": 5000' in out.getvalue()
    assert '+00:00"' in out.getvalue() or 'Z"' in out.getvalue()


async def test_commands_ignore_another_search_path(empty_database: Database, admin: psycopg.Connection) -> None:
    """It has a promo_codes of its own, and functions that PostgreSQL's own are named after."""
    await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    await fill(empty_database)
    admin.execute(
        "CREATE SCHEMA other; CREATE TABLE other.promo_codes AS SELECT * FROM public.promo_codes LIMIT 0; "
        "CREATE FUNCTION other.upper(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN 'WRONG'; "
        f"GRANT USAGE ON SCHEMA other TO {RUNTIME}, {OWNER}; GRANT SELECT ON other.promo_codes TO {RUNTIME}, {OWNER}"
    )
    set_defaults(admin, empty_database, {"search_path": "other, pg_catalog, public"})
    admin.execute(f"ALTER DATABASE {empty_database.name} SET search_path = other, pg_catalog, public".encode())
    assert await export(empty_database.runtime_url, "vouchers", "jsonl", io.StringIO()) == 3
    assert await verify(empty_database.runtime_url) == []
    with pytest.raises(MigrationError, match="has the default schema other"):
        await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)


async def test_rows_hidden_by_row_security_are_an_error(empty_database: Database, admin: psycopg.Connection) -> None:
    """A sum over the rows that are left would look right."""
    await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    await fill(empty_database)
    admin.execute("ALTER TABLE credit_ledger ENABLE ROW LEVEL SECURITY")
    with pytest.raises(LedgerUnavailableError, match="lacks rights"):
        await verify(empty_database.runtime_url)


async def test_sessions_without_triggers_are_refused(empty_database: Database, admin: psycopg.Connection) -> None:
    admin.execute(f"ALTER DATABASE {empty_database.name} SET session_replication_role = 'replica'".encode())
    with pytest.raises(MigrationError, match="so that no trigger fires: reset it there"):
        await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)


def waiting(admin: psycopg.Connection) -> bool:
    query = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s "
        "AND wait_event_type = 'Lock' AND wait_event <> 'advisory'"
    )
    return admin.execute(query, (APPLICATION_NAME,)).fetchone() is not None


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_entry_deleted_during_backfill_is_not_summed_under_strict_isolation(
    empty_database: Database, admin: psycopg.Connection, isolation: str
) -> None:
    """A snapshot that is older than the lock would still see it."""
    async with GoService.connect(empty_database.owner_url) as go:
        await go.start()
        await go.issue("A", 10)
        customer = await go.customer("leaver")
        await go.redeem(customer, "A")
    set_defaults(admin, empty_database, {"default_transaction_isolation": isolation})
    plan = Plan(empty_database.owner_url, "OMR", 3, RUNTIME, 60)
    migrations = migration._read()
    migration._apply_all(prepare(plan, {one.id for one in migrations}), migrations)
    with psycopg.connect(empty_database.owner_url) as leaver:
        leaver.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        leaver.execute("DELETE FROM promo_redemptions")
        leaver.execute("UPDATE promo_codes SET times_redeemed = 0")
        leaver.execute("DELETE FROM credit_ledger WHERE reason = 'promo:A' AND order_id IS NULL")
        summing = threading.Thread(target=backfill, args=(plan,))
        summing.start()
        await asyncio.to_thread(wait_until, lambda: waiting(admin), "the summing waits for the deletion")
        leaver.commit()
    await asyncio.to_thread(summing.join)
    assert admin.execute("SELECT granted_minor FROM promo_codes").fetchall() == [(0,)]
    assert await verify(empty_database.admin_url) == []

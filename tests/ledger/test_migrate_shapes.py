"""Objects with our names are compared with what the migrations create, and repaired or refused with advice."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from testbed.postgres import RUNTIME, Database
from tests.ledger.go_service import STARTUP
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema import session as migrate_session
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import MigrationError
from voucher_operator.ledger.schema.shapes import Found, expected, read
from voucher_operator.ledger.session import OPERATOR, SESSION
from voucher_operator.ledger.statements import statement

INDEXES = {
    "credit_ledger_newest": "credit_ledger (customer_id, created_at)",
    "promo_codes_normal_code": "promo_codes (vouchers.normal_code(code))",
}


@contextmanager
def owner(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute("SET search_path TO public, pg_temp")
        yield connection


def go_tables(database: Database, *statements: str) -> None:
    with owner(database) as connection:
        for text in (*STARTUP, *statements):
            connection.execute(text.encode())


async def up(database: Database) -> list[str]:
    return await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME, retry_seconds=5)


def shapes(database: Database) -> dict[tuple[str, str], Found]:
    with owner(database) as connection:
        return read(connection)


def lines(shapes: dict[tuple[str, str], str]) -> set[str]:
    return {f"{kind} | {name} | {shape}" for (kind, name), shape in shapes.items()}


async def test_migrated_schema_equals_shapes_txt(database: Database) -> None:
    """A line that differs has to be added to, or removed from, ledger/schema/shapes.txt."""
    made = shapes(database)
    assert sorted(lines({name: found.shape for name, found in made.items()})) == sorted(lines(dict(expected())))
    assert all(found.working for found in made.values())


def interrupted(database: Database, name: str) -> None:
    """Build an index by hand, as the message says, and break off while it waits for a writer."""
    table = INDEXES[name].partition(" ")[0]
    with psycopg.connect(database.owner_url) as writer, owner(database) as connection:
        writer.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
        connection.execute("SET statement_timeout = '0.2s'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(f"CREATE INDEX CONCURRENTLY {name} ON {INDEXES[name]}".encode())
        writer.rollback()
    assert not shapes(database)["index", f"public.{name}"].working


def balance_plan(database: Database) -> str:
    with psycopg.connect(database.runtime_url, autocommit=True) as connection:
        connection.execute(SESSION, OPERATOR)
        rows = connection.execute(b"EXPLAIN " + statement("account_balance"), {"user": "somebody"}).fetchall()
    return "\n".join(row[0] for row in rows)


async def test_invalid_index_is_rebuilt_by_the_first_migration(empty_database: Database) -> None:
    go_tables(empty_database)
    interrupted(empty_database, "credit_ledger_newest")
    assert "0022.credit-ledger-newest-index" in await up(empty_database)
    assert shapes(empty_database)["index", "public.credit_ledger_newest"].working
    assert await verify(empty_database.runtime_url) == []


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("state", ["invalid", "absent"])
async def test_invalid_or_absent_index_of_a_migrated_ledger_is_rebuilt(
    database: Database, name: str, state: str
) -> None:
    with owner(database) as connection:
        connection.execute(f"DROP INDEX {name}".encode())
    if state == "invalid":
        interrupted(database, name)
    assert await up(database) == []
    assert shapes(database)["index", f"public.{name}"] == Found(expected()["index", f"public.{name}"])
    assert "Seq Scan on credit_ledger" not in balance_plan(database)


async def test_index_under_construction_is_not_dropped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who builds holds the table's lock for it: the migration waits behind, and gives up."""
    monkeypatch.setitem(migrate_session._SESSION, "lock_timeout", "100ms")
    with owner(database) as connection:
        connection.execute("DROP INDEX credit_ledger_newest")
    interrupted(database, "credit_ledger_newest")
    with psycopg.connect(database.owner_url) as builder:
        builder.execute("LOCK TABLE credit_ledger IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(MigrationError, match=rf"INVALID index .* gave up .*pid {builder.info.backend_pid} "):
            await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME, retry_seconds=0.1)
    assert not shapes(database)["index", "public.credit_ledger_newest"].working


async def test_slow_index_rebuild_is_reported_with_the_command(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(migrate_session._SESSION, "statement_timeout", "1s")
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("DROP INDEX credit_ledger_newest")
        admin.execute(
            "CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF current_query() NOT LIKE '%CONCURRENTLY%' THEN PERFORM pg_sleep(600); END IF; END $$; "
            "CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.slow()"
        )
        with pytest.raises(MigrationError, match=r"building the index public\.credit_ledger_newest took") as raised:
            await up(database)
        with owner(database) as connection:
            connection.execute(str(raised.value).partition("start, ")[2].partition(";")[0].encode())
    assert await up(database) == []


# What there was before the first migration; what the refusal says; what an administrator does, taken from the refusal.
BEFORE = [
    ("ALTER TABLE promo_codes ADD COLUMN credit_minor integer", "credit_minor .*(integer instead of bigint)"),
    ("ALTER TABLE promo_codes ADD COLUMN granted_minor bigint", "granted_minor .*(bigint instead of bigint not null"),
    (
        "ALTER TABLE credit_ledger ADD COLUMN amount_minor bigint NOT NULL DEFAULT 0",
        "amount_minor .*(bigint not null default 0 instead of bigint)",
    ),
    ("CREATE INDEX credit_ledger_newest ON credit_ledger (created_at)", "index .*(created_at) instead of"),
    ("CREATE TABLE promo_codes_normal_code ()", "index public.promo_codes_normal_code .*(not an index instead"),
    ("ALTER TABLE credit_ledger ENABLE ROW LEVEL SECURITY", "row level security is enabled on public.credit_ledger"),
    ("ALTER TABLE orders SET UNLOGGED", "public.orders is unlogged"),
    ("CREATE TABLE old () INHERITS (credit_ledger)", "public.credit_ledger also shows the rows of old"),
    (
        "CREATE RULE quiet AS ON DELETE TO credit_ledger DO INSTEAD NOTHING",
        "public.credit_ledger has the rule quiet",
    ),
    ("ALTER TABLE orders ADD COLUMN region text NOT NULL", "public.orders.region is NOT NULL without a default"),
    ("ALTER TABLE orders DROP COLUMN promo_code", "column public.orders.promo_code (text) is absent"),
    ("ALTER TABLE credit_ledger ALTER amount_omr TYPE bigint", "amount_omr .*(bigint instead of integer)"),
    ("ALTER TABLE customers DROP CONSTRAINT customers_user_id_key", "no unique index public.customers (user_id)"),
]


@pytest.mark.parametrize(("dirt", "said"), BEFORE, ids=[said for _, said in BEFORE])
async def test_other_shape_is_refused_before_anything_is_changed(
    empty_database: Database, dirt: str, said: str
) -> None:
    go_tables(empty_database, dirt)
    with pytest.raises(MigrationError, match=said.replace("(", r"\(").replace(")", r"\)")) as raised:
        await up(empty_database)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("; and then migrate again")
    with owner(empty_database) as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'vouchers'").fetchone() is None
        # The way out is a statement, or what its own words say.
        for command in re.findall(r"run ((?:ALTER|DROP|CREATE) [^;(]*(?:\([^;]*\))?)", str(raised.value)):
            if not command.startswith("ALTER TABLE public.credit_ledger ALTER"):
                connection.execute(command.replace("another name", "another_name").strip().encode())


async def test_advice_for_a_column_of_the_same_name_leads_to_a_migrated_ledger(empty_database: Database) -> None:
    go_tables(empty_database, "ALTER TABLE promo_codes ADD COLUMN credit_minor integer")
    with pytest.raises(MigrationError, match="RENAME COLUMN credit_minor TO another name"):
        await up(empty_database)
    with owner(empty_database) as connection:
        connection.execute("ALTER TABLE promo_codes RENAME COLUMN credit_minor TO another_name")
    assert await up(empty_database)
    assert await verify(empty_database.runtime_url) == []


AFTER = [
    ("ALTER TABLE credit_ledger DISABLE TRIGGER vouchers_before_insert", "vouchers_before_insert is disabled"),
    (
        "DROP TRIGGER vouchers_after_delete ON credit_ledger",
        "trigger public.credit_ledger.vouchers_after_delete is absent",
    ),
    (
        "CREATE OR REPLACE TRIGGER vouchers_before_insert AFTER INSERT ON credit_ledger "
        "FOR EACH ROW EXECUTE FUNCTION vouchers.credit_ledger_before_insert()",
        "trigger public.credit_ledger.vouchers_before_insert is not ours or was changed",
    ),
    ("ALTER TABLE vouchers.redemption DROP COLUMN undone_at", "column vouchers.redemption.undone_at is absent"),
    ("ALTER TABLE vouchers.purchase DROP CONSTRAINT purchase_state_check", "purchase_state_check is absent"),
    ("ALTER TABLE customers DROP CONSTRAINT customers_lock_right_check", "customers_lock_right_check is absent"),
    ("DROP INDEX vouchers.purchase_look", ""),
    (
        "ALTER FUNCTION vouchers.floor_to_major(bigint) SECURITY DEFINER",
        "function vouchers.floor_to_major(bigint) is not ours",
    ),
    ("ALTER FUNCTION vouchers.take_back_redemption RESET ALL", "definer set nothing instead of"),
    ("ALTER TABLE vouchers.terms DROP CONSTRAINT terms_owner_uid_key", "run CREATE UNIQUE INDEX terms_owner_uid_key"),
    (
        "CREATE TABLE own (id uuid); "
        "CREATE TRIGGER own AFTER DELETE ON own EXECUTE FUNCTION vouchers.credit_ledger_after_delete()",
        "the trigger own on own calls a function of the ledger: run DROP TRIGGER own ON own",
    ),
]


@pytest.mark.parametrize(("dirt", "said"), AFTER, ids=[dirt[:60] for dirt, _ in AFTER])
async def test_migrated_ledger_that_was_changed_is_repaired_or_refused(
    database: Database, dirt: str, said: str
) -> None:
    with owner(database) as connection:
        connection.execute(dirt.encode())
        if said:
            with pytest.raises(MigrationError, match=re.escape(said)) as raised:
                await up(database)
            for command in re.findall(r"run ((?:ALTER|DROP|CREATE) [^;]*?)(?:, and verify)?(?=;)", str(raised.value)):
                connection.execute(command.encode())
        if "function vouchers" not in said and "definer" not in said:
            assert await up(database) == []
            assert await verify(database.runtime_url) == []


async def test_disabled_foreign_keys_are_named(database: Database) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("ALTER TABLE promo_redemptions DISABLE TRIGGER ALL")
    with pytest.raises(MigrationError, match=r"foreign keys are disabled on public\.promo_redemptions"):
        await up(database)


async def test_ledger_of_a_newer_version_is_not_compared(database: Database) -> None:
    """Going back to an older version works on a newer ledger, whose shapes that version does not know."""
    with owner(database) as connection:
        connection.execute(
            "INSERT INTO vouchers._yoyo_migration (migration_hash, migration_id, applied_at_utc) "
            "VALUES ('x', '9999.later', now()); ALTER TABLE vouchers.terms ALTER description TYPE varchar(500)"
        )
    assert await up(database) == []


async def test_comparison_takes_under_two_seconds(database: Database) -> None:
    with owner(database) as connection:
        begun = time.monotonic()
        read(connection)
        assert time.monotonic() - begun < 2

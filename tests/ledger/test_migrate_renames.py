"""From the names of the version before to those of this one, beside processes of the version before."""

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from testbed.postgres import RUNTIME, Database
from voucher_operator.ledger.schema import migrate as migration
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.preflight import prepare
from voucher_operator.ledger.schema.session import Plan

LAST_BEFORE = "0023"
STATEMENTS_BEFORE = [
    "INSERT INTO vouchers.inbox (event_id, type, raw, outcome) VALUES ('evt_1', 'x', '', 'applied') "
    "ON CONFLICT (event_id) DO NOTHING",
    "SELECT i.outcome FROM vouchers.inbox AS i WHERE i.event_id = 'evt_1' FOR NO KEY UPDATE",
    "UPDATE vouchers.inbox AS i SET outcome = 'no_change' WHERE i.event_id = 'evt_1'",
    "DELETE FROM vouchers.inbox AS i WHERE i.event_id = 'evt_1'",
    "SELECT vouchers.whole(25500), vouchers.whole_units(-12345, 1000)",
    "SELECT upto FROM vouchers.summing",
    "SELECT code FROM vouchers.summed",
]
"""What the version before runs as the runtime role."""
PURCHASE = (
    "INSERT INTO vouchers.purchase (key, order_id, customer_id, state, settled_at) SELECT 'a/b', gen_random_uuid(), "
    "gen_random_uuid(), 'completed', now()"
)
WHOLE_PURCHASE = """
    INSERT INTO vouchers.purchase (key, order_id, customer_id, state, settled_at, deadline_at, due_minor, email,
                                   held_minor, plan_id, request_hash, subdomain, tenant_id, total_minor, uid, user_id)
    SELECT 'a/b', gen_random_uuid(), gen_random_uuid(), 'completed', now(), now(), 0, '', 0, '', '', '', '', 0, '', ''
"""


def plan_of(database: Database) -> Plan:
    return Plan(database.owner_url, "OMR", 3, RUNTIME, 60)


def apply_up_to(database: Database, last: str) -> None:
    """Apply the migrations until `last`, without the rights: those of this version name what comes later."""
    migrations = migration._read()
    acting = prepare(plan_of(database), {one.id for one in migrations})
    with migration._Backend.open(acting) as backend:
        backend.ensure_internal_schema_updated()
        for one in migrations:
            if one.id[:4] <= last:
                migration._apply(backend, one, acting, mark=True)


def apply_rest_without_rights(database: Database) -> None:
    """Apply the other migrations, and stop before the rights: as a migration that gives up does."""
    migrations = migration._read()
    acting = prepare(plan_of(database), {one.id for one in migrations})
    with migration._Backend.open(acting) as backend:
        done = set(backend.get_applied_migration_hashes())
        for one in migrations:
            if one.hash not in done:
                migration._apply(backend, one, acting, mark=True)


@pytest.fixture
def before(empty_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A ledger of the version before, with the rights that its runtime role has; yields an administrator's session."""
    apply_up_to(empty_database, LAST_BEFORE)
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        role = sql.Identifier(RUNTIME)
        for command in (
            "GRANT USAGE ON SCHEMA vouchers, public TO {}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON vouchers.inbox TO {}",
            "GRANT SELECT ON vouchers.summing, vouchers.summed, vouchers.sovereign TO {}",
            "GRANT SELECT, INSERT, UPDATE ON vouchers.purchase TO {}",
            "GRANT EXECUTE ON FUNCTION vouchers.whole(bigint), vouchers.scale() TO {}",
            "GRANT EXECUTE ON FUNCTION vouchers.whole_units(bigint, bigint) TO {}",
        ):
            admin.execute(sql.SQL(command).format(role))
        yield admin


@pytest.mark.usefixtures("before")
def test_version_before_works_between_the_renames_and_the_rights(empty_database: Database) -> None:
    apply_rest_without_rights(empty_database)
    with psycopg.connect(empty_database.runtime_url, autocommit=True) as runtime:
        for statement in STATEMENTS_BEFORE:
            runtime.execute(statement.encode())
        with pytest.raises(psycopg.errors.NotNullViolation):  # the rights are there: it is the row that is refused
            runtime.execute(PURCHASE.encode())


async def test_version_before_works_after_a_rollback_has_set_its_rights(
    before: psycopg.Connection[Any], empty_database: Database
) -> None:
    """Its `migrate` takes every right that it does not know from the runtime role."""
    await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    role = sql.Identifier(RUNTIME)
    for command in (
        "REVOKE ALL ON FUNCTION vouchers.floor_to_major(bigint), vouchers.floor_to_major(bigint, bigint) FROM {}",
        "REVOKE ALL ON FUNCTION vouchers.key_namespace(text) FROM {}",
        "REVOKE ALL ON vouchers.webhook_event, vouchers.backfill_progress, vouchers.backfill_total FROM {}",
    ):
        before.execute(sql.SQL(command).format(role))
    with psycopg.connect(empty_database.runtime_url, autocommit=True) as runtime:
        for statement in (*STATEMENTS_BEFORE, WHOLE_PURCHASE):
            runtime.execute(statement.encode())


async def test_rights_of_another_role_follow_to_the_former_names(
    before: psycopg.Connection[Any], empty_database: Database
) -> None:
    role = sql.Identifier(f"reader_{empty_database.name}")
    before.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        before.execute(sql.SQL("GRANT USAGE ON SCHEMA vouchers TO {}").format(role))
        before.execute(sql.SQL("GRANT SELECT ON vouchers.inbox, vouchers.sovereign TO {}").format(role))
        before.execute(sql.SQL("GRANT EXECUTE ON FUNCTION vouchers.whole(bigint), vouchers.scale() TO {}").format(role))
        await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
        before.execute(sql.SQL("SET ROLE {}").format(role))
        before.execute("SELECT count(*), vouchers.whole(25500) FROM vouchers.inbox")
        before.execute("SELECT count(*), vouchers.floor_to_major(25500) FROM vouchers.webhook_event")
    finally:
        before.execute("RESET ROLE")
        before.execute(sql.SQL("DROP OWNED BY {}").format(role))
        before.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize("relation", ["TABLE vouchers.inbox", "TABLE vouchers.summing", "TABLE vouchers.summed"])
async def test_table_of_another_owner_is_handed_over_and_renamed(
    before: psycopg.Connection[Any], empty_database: Database, relation: str
) -> None:
    before.execute(f"ALTER {relation} OWNER TO postgres".encode())
    await migrate(empty_database.admin_url, currency="OMR", runtime_role=RUNTIME)
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'vouchers'::regnamespace"
    assert len(before.execute(owners).fetchall()) == 1


async def test_absent_and_invalid_indexes_are_built_again_under_their_new_names(
    before: psycopg.Connection[Any], empty_database: Database
) -> None:
    before.execute("DROP INDEX vouchers.inbox_received")
    before.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vouchers.inbox_order'::regclass")
    await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    found = before.execute(
        "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'vouchers.webhook_event'::regclass AND i.indisvalid ORDER BY 1"
    ).fetchall()
    assert found == [(f"webhook_event_{name}",) for name in ("mismatch", "order", "pkey", "received")]


async def test_absent_view_of_a_former_name_stops_no_migration(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("DROP VIEW vouchers.summed")
    with caplog.at_level(logging.WARNING):
        assert await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME) == []
    assert caplog.records == []

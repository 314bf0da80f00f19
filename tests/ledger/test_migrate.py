"""What a migration makes of an empty database and of one that the Go service has used, and what it refuses to do."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlparse
from psycopg import sql
from yoyo import read_migrations

from testbed.postgres import OWNER, RUNTIME, Database, PostgresServer
from tests.ledger.go_service import GoService
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import MigrationError
from voucher_operator.resources.errors import CurrencyMismatchError, LedgerUnavailableError

GO_TABLES = ("customers", "subscriptions", "orders", "promo_codes", "promo_redemptions", "credit_ledger")
ALL = [
    "0001.billing-tables",
    "0002.vouchers-schema",
    "0003.promo-codes-columns",
    "0004.credit-ledger-columns",
    "0005.keep-in-step",
    "0006.promo-codes-index",
    "0007.credit-ledger-index",
    "0008.purchases",
    "0009.accounts",
    "0010.redemption-customer-index",
    "0011.undo-unreported-index",
    "0012.entries-in-balance",
    "0013.uses-of-all-spellings",
    "0014.customers-have-accounts",
    "0015.rights",
    "0016.ownership",
    "0017.payments",
    "0018.purchase-owed-index",
    "0019.purchase-undelivered-index",
    "0020.outbox-published-index",
    "0021.inbox-received-index",
    "0022.credit-ledger-newest-index",
    "0023.credit-ledger-customer-index",
    "0024.webhook-event",
    "0025.backfill-names",
    "0026.function-names",
    "0027.sync-triggers",
    "0028.key-namespace",
    "0029.purchase-undelivered-namespace-index",
    "0030.attempts",
    "0031.lost-payments",
    "0032.webhook-event-mismatch-index",
    "0033.namespaces",
]


async def up(database: Database) -> list[str]:
    return await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME)


def rows(url: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode(), parameters or None).fetchall()


def changed_anything(database: Database) -> bool:
    return bool(rows(database.admin_url, "SELECT FROM pg_namespace WHERE nspname = 'vouchers'"))


def shape(database: Database) -> list[tuple[Any, ...]]:
    """Columns and constraints of the Go service's tables, without what we add to them."""
    columns = rows(
        database.admin_url,
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = ANY (%s) AND column_name NOT IN "
        "('credit_minor', 'granted_minor', 'last_redeemed_at', 'uses_at_cap', 'amount_minor', 'balance_minor', "
        "'lock_right') "
        "ORDER BY 1, 2",
        list(GO_TABLES),
    )
    constraints = rows(
        database.admin_url,
        "SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype IN ('p', 'u', 'f') AND conrelid::regclass::text = ANY (%s) ORDER BY 1, 2, 3",
        list(GO_TABLES),
    )
    return columns + constraints


async def test_migration_of_an_empty_database_applies_all_files_once(empty_database: Database) -> None:
    assert await up(empty_database) == ALL
    assert await up(empty_database) == []
    assert rows(empty_database.admin_url, "SELECT currency, minor_digits FROM vouchers.sovereign") == [("OMR", 3)]


async def test_second_run_writes_nothing(empty_database: Database) -> None:
    await up(empty_database)
    query = "SELECT oid, xmin::text FROM pg_class UNION ALL SELECT oid, xmin::text FROM pg_proc ORDER BY 1"
    before = rows(empty_database.admin_url, query)
    await up(empty_database)
    assert rows(empty_database.admin_url, query) == before


async def test_tables_have_the_go_services_shape(postgres: PostgresServer, empty_database: Database) -> None:
    other = postgres.database(f"{empty_database.name}_go")
    try:
        async with GoService.connect(other.owner_url) as go:
            await go.start()
        await up(empty_database)
        assert shape(empty_database) == shape(other)
        await up(other)
        assert shape(empty_database) == shape(other)
    finally:
        postgres.drop(other)


async def test_existing_rows_survive_the_migration(empty_database: Database) -> None:
    codes = ["", "lower-case", "  PADDED\t", "NORMAL", "Ümlaut"]
    async with GoService.connect(empty_database.owner_url) as go:
        await go.start()
        for code in codes:
            await go.issue(code, 5, max_redemptions=-1)
        customer, other = await go.customer("a"), await go.customer("b")
        for code in codes:
            await go.redeem(customer, code)
        await go.redeem(other, "lower-case")
        await go.spend(customer, 7)
        await go.issue("CAPPED", 3, max_redemptions=2)
        await go.redeem(customer, "CAPPED")
        await go.redeem(other, "CAPPED")
        await go.issue("CAPPED", 3, max_redemptions=1)
        await go.revoke("NORMAL")

    def contents() -> list[list[tuple[Any, ...]]]:
        return [
            rows(empty_database.admin_url, query)
            for query in (
                "SELECT code, credit_omr, description, active, max_redemptions, times_redeemed, created_at, deleted_at "
                "FROM promo_codes ORDER BY 1",
                "SELECT id, customer_id, amount_omr, reason, order_id, created_at FROM credit_ledger ORDER BY 1",
                "SELECT * FROM promo_redemptions ORDER BY 1, 2",
                "SELECT id, user_id, tenant_id, stripe_customer_id, email, created_at FROM customers ORDER BY 1",
                "SELECT * FROM orders ORDER BY 1",
            )
        ]

    before = contents()
    await up(empty_database)
    assert contents() == before
    # Existing entries are not touched; the counters start from what they say.
    assert rows(empty_database.admin_url, "SELECT DISTINCT amount_minor FROM credit_ledger") == [(None,)]
    columns = "SELECT granted_minor, last_redeemed_at IS NOT NULL, uses_at_cap FROM promo_codes WHERE code = %s"
    assert rows(empty_database.admin_url, columns, "lower-case") == [(10_000, True, 0)]
    assert rows(empty_database.admin_url, columns, "") == [(5_000, True, 0)]
    assert rows(empty_database.admin_url, columns, "CAPPED") == [(6_000, True, 2)]


async def test_codes_are_found_in_normal_form_by_index(empty_database: Database) -> None:
    await up(empty_database)
    with psycopg.connect(empty_database.owner_url) as connection:
        connection.execute(
            "INSERT INTO promo_codes (code, credit_omr) SELECT 'x' || n, 1 FROM generate_series(1, 9) AS n"
        )
        connection.execute(r"INSERT INTO promo_codes (code, credit_omr) VALUES (E' \t pad-1 \r\n', 1)")
        connection.execute("SET enable_seqscan = off")
        query = "SELECT code FROM promo_codes WHERE vouchers.normal_code(code) = ANY ('{PAD-1,X7}') ORDER BY 1"
        assert [code for (code,) in connection.execute(query)] == [" \t pad-1 \r\n", "x7"]
        plan = str(connection.execute("EXPLAIN " + query).fetchall())
    assert "promo_codes_normal_code" in plan


async def test_concurrent_migrations_apply_each_file_once(empty_database: Database) -> None:
    results = await asyncio.gather(*(up(empty_database) for _ in range(4)))
    assert sorted(results) == [[], [], [], ALL]


async def test_change_of_currency_is_refused(empty_database: Database) -> None:
    await up(empty_database)
    with pytest.raises(CurrencyMismatchError, match="it cannot become USD"):
        await migrate(empty_database.owner_url, currency="USD", runtime_role=RUNTIME)


async def test_currency_without_decimals_has_scale_one(empty_database: Database) -> None:
    await migrate(empty_database.owner_url, currency="JPY", runtime_role=RUNTIME)
    assert rows(empty_database.admin_url, "SELECT vouchers.scale(), vouchers.floor_to_major(25)") == [(1, 25)]


async def test_unknown_currency_is_refused(empty_database: Database) -> None:
    with pytest.raises(MigrationError, match="ISO 4217"):
        await migrate(empty_database.owner_url, currency="XYZ", runtime_role=RUNTIME)
    assert not changed_anything(empty_database)


async def test_role_that_does_not_own_the_tables_is_refused(empty_database: Database) -> None:
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        admin.execute("CREATE TABLE promo_codes (code text PRIMARY KEY, credit_omr integer NOT NULL)")
    with pytest.raises(MigrationError, match=f"role {OWNER} does not own promo_codes: migrate as the role that does"):
        await up(empty_database)
    assert not changed_anything(empty_database)


async def test_role_without_a_right_to_create_is_refused(empty_database: Database) -> None:
    with pytest.raises(MigrationError, match="GRANT CREATE ON DATABASE"):
        await migrate(empty_database.runtime_url, currency="OMR", runtime_role=RUNTIME)
    assert not changed_anything(empty_database)


async def test_absent_runtime_role_is_refused_with_the_command(empty_database: Database) -> None:
    with pytest.raises(MigrationError, match='CREATE ROLE "nobody here" LOGIN; and then'):
        await migrate(empty_database.owner_url, currency="OMR", runtime_role="nobody here")
    assert not changed_anything(empty_database)


async def test_absent_runtime_role_is_created_where_allowed(empty_database: Database) -> None:
    role = f"{empty_database.name} runtime"
    await migrate(empty_database.admin_url, currency="OMR", runtime_role=role)
    query = (
        "SELECT rolcanlogin, has_table_privilege(rolname, 'credit_ledger', 'INSERT') FROM pg_roles WHERE rolname = %s"
    )
    assert rows(empty_database.admin_url, query, role) == [(False, True)]
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


async def test_excess_rights_are_revoked(empty_database: Database) -> None:
    await up(empty_database)
    with psycopg.connect(empty_database.owner_url, autocommit=True) as owner:
        owner.execute(f"GRANT ALL ON credit_ledger, customers, vouchers.sovereign TO {RUNTIME}")
        owner.execute(f"GRANT UPDATE (amount_omr) ON credit_ledger TO {RUNTIME}")
    await up(empty_database)
    query = "SELECT has_table_privilege(%s, 'credit_ledger', p) FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS p"
    assert rows(empty_database.admin_url, query, RUNTIME) == [(False,)] * 3
    query = "SELECT column_name, has_column_privilege(%s, 'credit_ledger', column_name, 'UPDATE') "
    query += "FROM information_schema.columns WHERE table_name = 'credit_ledger'"
    assert not any(allowed for _, allowed in rows(empty_database.admin_url, query, RUNTIME))


async def test_rights_through_another_role_are_warned_about(
    empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await up(empty_database)
    with psycopg.connect(empty_database.owner_url, autocommit=True) as owner:
        owner.execute("GRANT DELETE ON credit_ledger TO PUBLIC")
    await up(empty_database)
    assert "has DELETE on public.credit_ledger through another role or PUBLIC" in caplog.text


async def test_runtime_role_that_owns_the_tables_is_warned_about(
    empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(empty_database.owner_url, currency="OMR", runtime_role=OWNER)
    assert "give the operator a role of its own" in caplog.text
    assert rows(empty_database.owner_url, "SELECT has_table_privilege('credit_ledger', 'DELETE')") == [(True,)]


async def test_unreachable_server_is_an_error_with_advice() -> None:
    with pytest.raises(LedgerUnavailableError, match="cannot be reached: check that it runs"):
        await migrate("postgresql://owner@127.0.0.1:1/ledger", currency="OMR", runtime_role=RUNTIME)


def statements() -> Iterator[str]:
    migrations = read_migrations("package:voucher_operator:migrations")
    for migration in (*migrations, *migrations.post_apply):
        with open(migration.path, encoding="ascii") as file:
            yield from sqlparse.split(file.read())


def test_files_are_split_between_statements() -> None:
    for part in statements():
        code = [line for line in part.splitlines() if line and not line.startswith("--")]
        assert re.match("CREATE|INSERT|ALTER|LOCK|DROP|UPDATE|REVOKE|DO", code[0]), part
        assert part.endswith(";"), part
        assert part.count("$body$") in (0, 2), part

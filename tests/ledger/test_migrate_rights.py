"""What the runtime role, a reader and another writer may and may not do once the migration has granted rights."""

import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import AsyncConnection

from testbed.postgres import OWNER, RUNTIME, Database
from tests.ledger.helpers import issue, open_ledger, redeem_request
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.resources.reasons import Reason

CUSTOMER = "00000000-0000-4000-8000-000000000001"

FORBIDDEN = [
    "UPDATE credit_ledger SET amount_omr = 0",
    "UPDATE credit_ledger SET amount_minor = 0",
    "DELETE FROM credit_ledger",
    "TRUNCATE credit_ledger",
    "SELECT 1 FROM credit_ledger FOR UPDATE",
    "DELETE FROM promo_redemptions",
    "UPDATE promo_redemptions SET code = 'B'",
    "TRUNCATE promo_redemptions",
    "DELETE FROM promo_codes",
    "DELETE FROM customers",
    "UPDATE customers SET tenant_id = 'mine'",
    "UPDATE customers SET email = 'mine'",
    "UPDATE customers SET id = gen_random_uuid()",
    "UPDATE customers SET user_id = 'mine'",
    "DELETE FROM vouchers.redemption",
    "UPDATE vouchers.sovereign SET currency = 'USD'",
    "INSERT INTO vouchers.sovereign (currency, minor_digits) VALUES ('USD', 2)",
    "UPDATE vouchers.backfill_progress SET finished = false",
    "INSERT INTO vouchers.backfill_total VALUES ('A', 1)",
    "SELECT 1 FROM vouchers._yoyo_migration",
    "DELETE FROM orders",
    "DELETE FROM subscriptions",
    "DELETE FROM vouchers.purchase",
    "DELETE FROM vouchers.terms",
    "TRUNCATE vouchers.outbox",
    "TRUNCATE vouchers.webhook_event",
    "ALTER TABLE promo_codes ADD COLUMN mine integer",
    "ALTER TABLE credit_ledger DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "DROP TABLE vouchers.terms",
    "DROP TRIGGER vouchers_before_insert ON credit_ledger",
    "CREATE TABLE mine ()",
    "CREATE TABLE vouchers.mine ()",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql RETURN 1",
    "CREATE OR REPLACE FUNCTION vouchers.scale() RETURNS bigint LANGUAGE sql RETURN 1",
    "SELECT vouchers.take_back_redemption('n/a')",
]
ALLOWED = [
    "SELECT vouchers.scale(), vouchers.floor_to_major(25500), vouchers.normal_code(' a') FROM vouchers.sovereign",
    "INSERT INTO promo_codes (code, credit_omr, credit_minor) VALUES ('A', 0, 25500)",
    "SELECT 1 FROM promo_codes ORDER BY code FOR NO KEY UPDATE",
    "UPDATE promo_codes SET times_redeemed = times_redeemed + 1",
    "SELECT 1 FROM customers ORDER BY id FOR NO KEY UPDATE",
    "SELECT 1 FROM customers FOR KEY SHARE SKIP LOCKED",
    "UPDATE customers SET lock_right = NULL",
    f"INSERT INTO promo_redemptions (customer_id, code) VALUES ('{CUSTOMER}', 'A')",
    f"INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) VALUES ('{CUSTOMER}', 1, 1, 'x')",
    "SELECT sum(amount_minor) FROM credit_ledger",
    "UPDATE vouchers.terms SET revoked_at = now()",
    "INSERT INTO vouchers.redemption (key, request_hash, uid, outcome) VALUES ('n/a', '', '', 'refused')",
    f"INSERT INTO orders (customer_id, tenant_id, plan_id, amount_omr) VALUES ('{CUSTOMER}', 't', 'm', 1)",
    "UPDATE orders SET status = 'failed'",
    f"INSERT INTO subscriptions (customer_id, tenant_id, plan_id) VALUES ('{CUSTOMER}', 't', 'm')",
    "UPDATE subscriptions SET status = 'canceled'",
    "INSERT INTO vouchers.outbox (type, tenant_id, data) VALUES ('a', 't', '{}')",
    "UPDATE vouchers.outbox SET published_at = now()",
    "INSERT INTO vouchers.webhook_event (event_id, type, raw, outcome) VALUES ('e', 't', '', 'unknown')",
    "DELETE FROM vouchers.outbox",
    "DELETE FROM vouchers.webhook_event",
    "UPDATE vouchers.purchase SET state = 'cancelled'",
]
# Every statement of the Go service that fires a trigger of ours, or maintains an index of ours.
WRITES = [
    "INSERT INTO promo_codes (code, credit_omr) VALUES ('W', 10)",
    "UPDATE promo_codes SET credit_omr = 11, max_redemptions = 3 WHERE code = 'W'",
    "INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, 11, 'promo:W' FROM customers",
    "DELETE FROM credit_ledger WHERE reason = 'promo:W'",
]
TRIGGER_FUNCTIONS = "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.prorettype = 'trigger'::regtype "
TRIGGER_FUNCTIONS += "AND p.pronamespace = 'vouchers'::regnamespace"


@pytest.fixture
async def runtime(database: Database) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(database.runtime_url, autocommit=True) as connection:
        await connection.execute(
            f"INSERT INTO customers (id, user_id, tenant_id, email) VALUES ('{CUSTOMER}', 'u', 't', 'e')".encode()
        )
        yield connection


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(admin: psycopg.Connection) -> Iterator[str]:
    """A role that may read every table of the ledger and has no other right."""
    name = f"r{secrets.token_hex(6)}"
    admin.execute(f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA vouchers, public TO {name}".encode())
    admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA vouchers, public TO {name}".encode())
    yield name
    admin.execute("RESET ROLE")
    admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


async def up(database: Database) -> None:
    await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME)


async def test_runtime_role_lacks_every_other_right(runtime: AsyncConnection) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await runtime.execute(statement.encode())


async def test_runtime_role_has_every_needed_right(runtime: AsyncConnection) -> None:
    for statement in ALLOWED:
        await runtime.execute(statement.encode())


async def test_lock_right_column_accepts_no_value(runtime: AsyncConnection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await runtime.execute("UPDATE customers SET lock_right = true")


def fire_from_a_table_of_its_own(connection: psycopg.Connection, function: str) -> None:
    connection.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS own "
        "(id uuid, reason text, order_id text, amount_omr int, amount_minor bigint)"
    )
    connection.execute(
        f"CREATE TRIGGER own AFTER DELETE ON own FOR EACH ROW EXECUTE FUNCTION {function}; "
        "INSERT INTO own VALUES (gen_random_uuid(), 'promo:CODE', NULL, 1, 99999999); DELETE FROM own".encode()
    )


def test_reader_cannot_change_a_sum_through_a_trigger_of_its_own(
    database: Database, admin: psycopg.Connection, role: str
) -> None:
    admin.execute("INSERT INTO promo_codes (code, credit_omr) VALUES ('CODE', 10)")
    functions = [name for (name,) in admin.execute(TRIGGER_FUNCTIONS.encode())]
    assert functions
    with psycopg.connect(database.runtime_url, autocommit=True) as runtime:
        admin.execute(f"SET ROLE {role}".encode())
        for function in functions:
            for connection in (admin, runtime):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="for function"):
                    fire_from_a_table_of_its_own(connection, function)
        assert admin.execute("SELECT granted_minor FROM promo_codes").fetchall() == [(0,)]


async def test_triggers_fire_for_writers_without_rights_on_them(
    database: Database, admin: psycopg.Connection, role: str, runtime: AsyncConnection
) -> None:
    """The owner, as the Go service; another legacy writer; the operator, as far as it may."""
    admin.execute(f"GRANT INSERT, UPDATE, DELETE ON promo_codes, credit_ledger TO {role}".encode())
    admin.execute(f"REVOKE USAGE ON SCHEMA vouchers FROM {role}".encode())
    for statement in WRITES[:3]:
        await runtime.execute(statement.encode())
    admin.execute("DELETE FROM credit_ledger; DELETE FROM promo_codes")
    admin.execute(f"SET ROLE {role}".encode())
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        for connection in (admin, owner):
            sums = []
            for statement in WRITES:
                connection.execute(statement.encode())
                sums += owner.execute("SELECT credit_minor, granted_minor FROM promo_codes").fetchall()
            assert sums == [(10_000, 0), (11_000, 0), (11_000, 11_000), (11_000, 0)]
            owner.execute("DELETE FROM promo_codes")


async def test_rights_on_functions_are_revoked_from_everybody(
    database: Database, admin: psycopg.Connection, role: str
) -> None:
    """Also what the owner's default privileges gave; but for what a reader may be granted."""
    admin.execute(f"SET ROLE {OWNER}".encode())
    admin.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA vouchers GRANT EXECUTE ON FUNCTIONS TO {role}".encode())
    admin.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA vouchers TO PUBLIC, {RUNTIME}, {role}".encode())
    admin.execute("REVOKE EXECUTE ON FUNCTION vouchers.normal_code FROM PUBLIC")
    admin.execute("CREATE FUNCTION vouchers.later() RETURNS integer LANGUAGE sql SECURITY DEFINER RETURN 1")
    await up(database)
    query = (
        "SELECT p.proname, a.grantee::regrole::text FROM pg_proc AS p, "
        "aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a "
        "WHERE p.pronamespace = 'vouchers'::regnamespace AND a.grantee <> p.proowner ORDER BY 1, 2"
    )
    assert admin.execute(query.encode()).fetchall() == sorted(
        [
            ("lock_account", RUNTIME),
            ("open_account", RUNTIME),
            *(("normal_code", who) for who in ("-", RUNTIME, role)),
            *(("scale", who) for who in (RUNTIME, role)),
            ("take_back_redemption", RUNTIME),
            *(("floor_to_major", who) for who in (RUNTIME, role) for _ in range(2)),
            *((name, who) for name in ("key_namespace", "whole", "whole_units") for who in (RUNTIME, role)),
        ]
    )
    admin.execute("DROP FUNCTION vouchers.later")


async def test_administrator_objects_in_the_schema_are_not_changed(
    database: Database, admin: psycopg.Connection
) -> None:
    admin.execute("CREATE VIEW vouchers.report AS SELECT code, granted_minor FROM promo_codes")
    admin.execute("CREATE FUNCTION vouchers.report() RETURNS integer LANGUAGE sql RETURN 1")
    admin.execute(f"GRANT SELECT ON vouchers.report TO {RUNTIME}".encode())
    await up(database)
    with psycopg.connect(database.runtime_url) as runtime:
        assert runtime.execute("SELECT *, vouchers.report() FROM vouchers.report").fetchall() == []


async def test_excess_rights_on_columns_and_unknown_tables_are_revoked(
    database: Database, admin: psycopg.Connection, runtime: AsyncConnection
) -> None:
    """As the version before had them, and as default privileges may give them."""
    admin.execute(f"CREATE TABLE vouchers.unknown (); ALTER TABLE vouchers.unknown OWNER TO {OWNER}".encode())
    admin.execute(f"GRANT UPDATE (email, id), REFERENCES (id) ON customers TO {RUNTIME}".encode())
    admin.execute(
        f"GRANT DELETE ON promo_redemptions TO {RUNTIME}; GRANT ALL ON vouchers.unknown TO {RUNTIME}".encode()
    )
    admin.execute(f"GRANT CREATE ON SCHEMA vouchers, public TO {RUNTIME}".encode())
    await up(database)
    for statement in (*FORBIDDEN, "SELECT FROM vouchers.unknown"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await runtime.execute(statement.encode())
    await runtime.execute("SELECT 1 FROM customers FOR NO KEY UPDATE")
    admin.execute("DROP TABLE vouchers.unknown")


async def test_column_rights_through_another_role_cause_a_warning(
    database: Database, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    admin.execute("GRANT UPDATE (email) ON customers TO PUBLIC")
    await up(database)
    assert "has UPDATE on public.customers through another role or PUBLIC" in caplog.text


UNDO_WITHOUT_REVERSAL = [
    "UPDATE vouchers.redemption SET outcome = 'undone', undone_at = now()",
    "UPDATE vouchers.redemption SET outcome = 'undone', reversal_entry_id = grant_entry_id",
]


async def test_redemption_row_is_deleted_only_with_a_reversal_in_the_same_transaction(database: Database) -> None:
    await issue(database, "CODE", credit_minor=5_500)
    async with open_ledger(database.runtime_url) as ledger:
        key = "shop/first"
        placed = await place_purchase(ledger, purchase_request(50_000, redeem=redeem_request("CODE", "one", key=key)))
        async with await AsyncConnection.connect(database.runtime_url, autocommit=True) as runtime:
            for way in UNDO_WITHOUT_REVERSAL:
                await runtime.execute(f"BEGIN; {way}".encode())
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="has not reversed"):
                    await runtime.execute("SELECT vouchers.take_back_redemption(%s)", (key,))
                await runtime.execute("ROLLBACK")
            taken = await ledger.compensate(placed.key, Reason.ABANDONED)
            assert taken is not None
            assert not taken.redeemed
            # A second call would delete what the customer has redeemed since.
            again = redeem_request("CODE", "one", key="shop/again")
            await ledger.redeem(again)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="has not reversed"):
                await runtime.execute("SELECT vouchers.take_back_redemption(%s)", (key,))
    assert await verify(database.admin_url) == []

"""What the runtime role may and may not do once the migration has granted its rights."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import AsyncConnection

from testbed.postgres import Database

CUSTOMER = "00000000-0000-4000-8000-000000000001"

FORBIDDEN = [
    "UPDATE credit_ledger SET amount_omr = 0",
    "UPDATE credit_ledger SET amount_minor = 0",
    "DELETE FROM credit_ledger",
    "TRUNCATE credit_ledger",
    "TRUNCATE promo_redemptions",
    "DELETE FROM promo_codes",
    "DELETE FROM customers",
    "UPDATE customers SET tenant_id = 'mine'",
    "DELETE FROM vouchers.redemption",
    "UPDATE vouchers.sovereign SET currency = 'USD'",
    "DELETE FROM orders",
    "DELETE FROM subscriptions",
    "DELETE FROM vouchers.purchase",
    "TRUNCATE vouchers.outbox",
    "TRUNCATE vouchers.inbox",
    "ALTER TABLE promo_codes ADD COLUMN mine integer",
    "DROP TABLE vouchers.terms",
    "DROP TRIGGER vouchers_before_insert ON credit_ledger",
    "CREATE TABLE mine ()",
    "CREATE TABLE vouchers.mine ()",
    "CREATE SCHEMA mine",
    "CREATE OR REPLACE FUNCTION vouchers.scale() RETURNS bigint LANGUAGE sql RETURN 1",
]
ALLOWED = [
    "SELECT currency, vouchers.scale(), vouchers.whole(25500), vouchers.normal_code(' a') FROM vouchers.sovereign",
    "INSERT INTO promo_codes (code, credit_omr, credit_minor) VALUES ('A', 0, 25500)",
    "SELECT 1 FROM promo_codes ORDER BY code FOR NO KEY UPDATE",
    "UPDATE promo_codes SET times_redeemed = times_redeemed + 1",
    "SELECT 1 FROM customers ORDER BY id FOR NO KEY UPDATE",
    "UPDATE customers SET email = 'new'",
    f"INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) VALUES ('{CUSTOMER}', 1, 1, 'x')",
    "SELECT sum(amount_minor) FROM credit_ledger",
    "DELETE FROM promo_redemptions",
    "UPDATE vouchers.terms SET revoked_at = now()",
    "INSERT INTO vouchers.redemption (key, request_hash, uid, outcome) VALUES ('n/a', '', '', 'refused')",
    f"INSERT INTO orders (customer_id, tenant_id, plan_id, amount_omr) VALUES ('{CUSTOMER}', 't', 'm', 1)",
    "UPDATE orders SET status = 'failed'",
    f"INSERT INTO subscriptions (customer_id, tenant_id, plan_id) VALUES ('{CUSTOMER}', 't', 'm')",
    "UPDATE subscriptions SET status = 'canceled'",
    "INSERT INTO vouchers.outbox (type, tenant_id, data) VALUES ('a', 't', '{}')",
    "UPDATE vouchers.outbox SET published_at = now()",
    "INSERT INTO vouchers.inbox (event_id, type, raw, outcome) VALUES ('e', 't', '', 'unknown')",
    "DELETE FROM vouchers.outbox",
    "DELETE FROM vouchers.inbox",
    "UPDATE vouchers.purchase SET state = 'cancelled'",
]


@pytest.fixture
async def runtime(database: Database) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(database.runtime_url, autocommit=True) as connection:
        await connection.execute(
            f"INSERT INTO customers (id, user_id, tenant_id, email) VALUES ('{CUSTOMER}', 'u', 't', 'e')".encode()
        )
        yield connection


async def test_forbidden(runtime: AsyncConnection) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await runtime.execute(statement.encode())


async def test_allowed(runtime: AsyncConnection) -> None:
    for statement in ALLOWED:
        await runtime.execute(statement.encode())

"""The Go billing service's own SQL, as a client: what runs on the same tables, and must go on doing so unchanged.

Unqualified names, named columns, READ COMMITTED, one statement at a time, as it does. It knows nothing of our columns.
Used by the tests of the migrations, of concurrency and of the benchmarks; the shapes are a contract and no business of
ours to improve.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, IsolationLevel

STARTUP_LIMIT = 10.0
"""Seconds it gives its start-up statements, all together, before it exits."""

STARTUP = (
    """CREATE TABLE IF NOT EXISTS customers (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(), user_id TEXT NOT NULL UNIQUE, tenant_id TEXT NOT NULL,
        stripe_customer_id TEXT UNIQUE, email TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS subscriptions (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(), customer_id UUID NOT NULL REFERENCES customers(id),
        tenant_id TEXT NOT NULL, stripe_subscription_id TEXT UNIQUE, plan_id TEXT NOT NULL,
        status TEXT NOT NULL DEFAULT 'active', current_period_start TIMESTAMPTZ, current_period_end TIMESTAMPTZ,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS invoices (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(), customer_id UUID NOT NULL REFERENCES customers(id),
        stripe_invoice_id TEXT UNIQUE, amount_omr INT NOT NULL, status TEXT NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS stripe_webhook_events (
        event_id TEXT PRIMARY KEY, received_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    "CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS orders (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(), customer_id UUID NOT NULL REFERENCES customers(id),
        tenant_id TEXT NOT NULL, plan_id TEXT NOT NULL, apps JSONB NOT NULL DEFAULT '[]',
        addons JSONB NOT NULL DEFAULT '[]', amount_omr INT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
        stripe_session_id TEXT, created_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS promo_codes (
        code TEXT PRIMARY KEY, credit_omr INT NOT NULL, description TEXT NOT NULL DEFAULT '',
        active BOOLEAN NOT NULL DEFAULT true, max_redemptions INT NOT NULL DEFAULT 0,
        times_redeemed INT NOT NULL DEFAULT 0, created_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS promo_redemptions (
        customer_id UUID NOT NULL REFERENCES customers(id), code TEXT NOT NULL REFERENCES promo_codes(code),
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (customer_id, code))""",
    """CREATE TABLE IF NOT EXISTS credit_ledger (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(), customer_id UUID NOT NULL REFERENCES customers(id),
        amount_omr INT NOT NULL, reason TEXT NOT NULL, order_id TEXT,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    "ALTER TABLE orders ADD COLUMN IF NOT EXISTS amount_baisa BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE orders ADD COLUMN IF NOT EXISTS promo_code TEXT",
    "ALTER TABLE orders ADD COLUMN IF NOT EXISTS apps JSONB NOT NULL DEFAULT '[]'",
    "ALTER TABLE orders ADD COLUMN IF NOT EXISTS addons JSONB NOT NULL DEFAULT '[]'",
    "ALTER TABLE customers ADD COLUMN IF NOT EXISTS stripe_customer_id TEXT UNIQUE",
    "ALTER TABLE promo_codes ADD COLUMN IF NOT EXISTS deleted_at TIMESTAMPTZ",
    "ALTER TABLE promo_codes ADD COLUMN IF NOT EXISTS max_redemptions INT NOT NULL DEFAULT 0",
    "ALTER TABLE credit_ledger ADD COLUMN IF NOT EXISTS order_id TEXT",
    "ALTER TABLE credit_ledger ADD COLUMN IF NOT EXISTS status TEXT NOT NULL DEFAULT 'active'",
)


class RedemptionRefused(Exception):  # noqa: N818 - a refusal is an answer
    """Its answer to a code that it does not take: not found, inactive, limit reached, already redeemed."""


@dataclass(frozen=True, slots=True)
class PromoCode:
    """What its admin page and its preview show."""

    code: str
    credit_omr: int
    description: str
    active: bool
    max_redemptions: int
    times_redeemed: int


class GoService:
    """Its statements on one connection, which must be in autocommit mode, as database/sql has it."""

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        if not conn.autocommit:
            raise ValueError("the Go service works in autocommit mode: a lone SELECT leaves no transaction open")
        self._conn = conn

    @classmethod
    @asynccontextmanager
    async def connect(cls, database_url: str) -> AsyncIterator["GoService"]:
        """Open a connection of its own and close it in the end."""
        async with await AsyncConnection.connect(
            database_url, autocommit=True, application_name="go-billing-service"
        ) as conn:
            await conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
            yield cls(conn)

    async def start(self) -> None:
        """Its migration, run at every start: 18 statements, no transaction. Raises TimeoutError after its limit."""
        async with asyncio.timeout(STARTUP_LIMIT):
            for statement in STARTUP:
                await self._conn.execute(statement)

    async def customer(self, user_id: str, tenant_id: str = "tenant", email: str = "someone@example.com") -> UUID:
        """The user's row, made at the first checkout."""
        cursor = await self._conn.execute("SELECT id FROM customers WHERE user_id = %s", (user_id,))
        row = await cursor.fetchone()
        if row is None:
            cursor = await self._conn.execute(
                "INSERT INTO customers (user_id, tenant_id, email) VALUES (%s, %s, %s) "
                "ON CONFLICT (user_id) DO UPDATE SET email = EXCLUDED.email RETURNING id",
                (user_id, tenant_id, email),
            )
            row = await cursor.fetchone()
        assert row is not None
        return UUID(str(row[0]))

    async def issue(
        self, code: str, credit_omr: int, *, description: str = "", active: bool = True, max_redemptions: int = 0
    ) -> None:
        """Insert or update by code, as typed; brings a revoked code back."""
        await self._conn.execute(
            "INSERT INTO promo_codes (code, credit_omr, description, active, max_redemptions) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (code) DO UPDATE SET credit_omr = EXCLUDED.credit_omr, "
            "description = EXCLUDED.description, active = EXCLUDED.active, "
            "max_redemptions = EXCLUDED.max_redemptions, deleted_at = NULL",
            (code, credit_omr, description, active, max_redemptions),
        )

    async def revoke(self, code: str) -> None:
        """Soft delete."""
        await self._conn.execute("UPDATE promo_codes SET deleted_at = now(), active = false WHERE code = %s", (code,))

    async def redeem(self, customer_id: UUID, code: str) -> int:
        """Five statements, one transaction; returns the credit in whole units. Raises Refused."""
        async with self._conn.transaction():
            credit = await self._lock(code)
            cursor = await self._conn.execute(
                "SELECT count(*) FROM promo_redemptions WHERE customer_id = %s AND code = %s", (customer_id, code)
            )
            row = await cursor.fetchone()
            if row is None or row[0] > 0:
                raise RedemptionRefused("promo code already redeemed")
            await self._conn.execute(
                "INSERT INTO promo_redemptions (customer_id, code) VALUES (%s, %s)", (customer_id, code)
            )
            await self._conn.execute(
                "UPDATE promo_codes SET times_redeemed = times_redeemed + 1 WHERE code = %s", (code,)
            )
            await self._conn.execute(
                "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, %s, %s)",
                (customer_id, credit, f"promo:{code}"),
            )
        return credit

    async def _lock(self, code: str) -> int:
        cursor = await self._conn.execute(
            "SELECT credit_omr, active, max_redemptions, times_redeemed, deleted_at "
            "FROM promo_codes WHERE code = %s FOR UPDATE",
            (code,),
        )
        row = await cursor.fetchone()
        if row is None or row[4] is not None:
            raise RedemptionRefused("promo code not found")
        credit, active, cap, used, _ = row
        if not active:
            raise RedemptionRefused("promo code is inactive")
        if cap > 0 and used >= cap:
            raise RedemptionRefused("promo code redemption limit reached")
        return int(credit)

    async def undo(self, customer_id: UUID, code: str) -> bool:
        """Its compensation, one transaction; False when there was nothing to undo."""
        async with self._conn.transaction():
            cursor = await self._conn.execute(
                "DELETE FROM promo_redemptions WHERE customer_id = %s AND code = %s", (customer_id, code)
            )
            if cursor.rowcount == 0:
                return False
            await self._conn.execute(
                "UPDATE promo_codes SET times_redeemed = GREATEST(times_redeemed - 1, 0) WHERE code = %s", (code,)
            )
            await self._conn.execute(
                "DELETE FROM credit_ledger WHERE customer_id = %s AND reason = %s AND order_id IS NULL",
                (customer_id, f"promo:{code}"),
            )
        return True

    async def balance(self, customer_id: UUID) -> int:
        """Whole units."""
        cursor = await self._conn.execute(
            "SELECT COALESCE(SUM(amount_omr), 0) FROM credit_ledger WHERE customer_id = %s", (customer_id,)
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def spend(self, customer_id: UUID, amount_omr: int, plan_id: str = "m") -> UUID:
        """A checkout that credit covers: order, spend, subscription, one transaction, no balance check inside."""
        async with self._conn.transaction():
            cursor = await self._conn.execute(
                "INSERT INTO orders (customer_id, tenant_id, plan_id, amount_omr, amount_baisa, status) "
                "VALUES (%s, 'tenant', %s, %s, %s, 'completed') RETURNING id",
                (customer_id, plan_id, amount_omr, amount_omr * 1000),
            )
            row = await cursor.fetchone()
            assert row is not None
            await self._conn.execute(
                "INSERT INTO credit_ledger (customer_id, amount_omr, reason, order_id) "
                "VALUES (%s, %s, 'order-payment', %s)",
                (customer_id, -amount_omr, str(row[0])),
            )
            await self._conn.execute(
                "INSERT INTO subscriptions (customer_id, tenant_id, plan_id) VALUES (%s, 'tenant', %s)",
                (customer_id, plan_id),
            )
        return UUID(str(row[0]))

    async def codes(self) -> list[PromoCode]:
        """The admin page's list."""
        cursor = await self._conn.execute(
            "SELECT code, credit_omr, description, active, max_redemptions, times_redeemed "
            "FROM promo_codes WHERE deleted_at IS NULL ORDER BY created_at DESC"
        )
        return [PromoCode(*row) for row in await cursor.fetchall()]

    async def preview(self, code: str) -> PromoCode | None:
        """What the shop shows before the checkout."""
        cursor = await self._conn.execute(
            "SELECT code, credit_omr, description, active, max_redemptions, times_redeemed "
            "FROM promo_codes WHERE code = %s AND deleted_at IS NULL",
            (code,),
        )
        row = await cursor.fetchone()
        return None if row is None else PromoCode(*row)

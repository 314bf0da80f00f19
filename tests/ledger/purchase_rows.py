"""Purchases in any state, written in SQL as buying leaves them, for the tests of what happens to them afterwards."""

import itertools
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.helpers import rows
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.purchase.types import PaymentEffect, PaymentEvent, PurchaseState

_numbers = itertools.count(1)
_HOLDS = (PurchaseState.PENDING, PurchaseState.AWAITING_PAYMENT, PurchaseState.COMPLETED, PurchaseState.CHARGED_BACK)
_ORDER = {
    PurchaseState.PENDING: "pending",
    PurchaseState.AWAITING_PAYMENT: "pending",
    PurchaseState.COMPLETED: "completed",
    PurchaseState.CANCELLED: "cancelled",
    PurchaseState.ROLLED_BACK: "failed",
    PurchaseState.REFUNDED: "refunded",
    PurchaseState.CHARGED_BACK: "charged_back",
}

_ROWS = """
INSERT INTO customers (id, user_id, tenant_id, email) VALUES ('{customer}', '{user}', 'first', '{user}@example.com')
ON CONFLICT DO NOTHING;

INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason)
SELECT '{customer}', vouchers.floor_to_major({credit}), {credit}, 'gift' WHERE {credit} > 0;

INSERT INTO orders (id, customer_id, tenant_id, plan_id, apps, addons, amount_omr, amount_baisa, status)
VALUES ('{order}', '{customer}', '{tenant}', 'l', '["shop"]', '["waf"]', -vouchers.floor_to_major(-{total}), {total},
    '{status}');

INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id)
SELECT '{hold}', '{customer}', vouchers.floor_to_major(-{held}), -{held}, 'order-payment', '{order}' WHERE {held} > 0;

INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id)
SELECT '{release}', '{customer}', -vouchers.floor_to_major(-{held}), {held}, 'order-payment', '{order}'
WHERE {held} > 0 AND NOT {holds};

INSERT INTO vouchers.purchase (key, request_hash, uid, order_id, customer_id, user_id, tenant_id, email, plan_id, apps,
    addons, lines, subdomain, total_minor, held_minor, due_minor, state, reason, hold_entry_id, release_entry_id,
    session_id, checkout_url, subscription_id, placed_at, deadline_at)
VALUES ('{key}', 'hash', 'uid', '{order}', '{customer}', '{user}', '{tenant}', '{user}@example.com', 'l', '["shop"]',
    '["waf"]', '[{{"kind": "plan", "id": "l", "slug": "l", "name": "Large", "price_minor": {total}}}]', 'kestrel',
    {total}, {held}, {due}, '{state}', NULL, CASE WHEN {held} > 0 THEN '{hold}'::uuid END,
    CASE WHEN {held} > 0 AND NOT {holds} THEN '{release}'::uuid END, {session}, NULL, NULL,
    clock_timestamp() - interval '10 minutes', clock_timestamp() + interval '5 minutes');

INSERT INTO subscriptions (id, customer_id, tenant_id, plan_id)
SELECT '{order}', '{customer}', '{tenant}', 'l' WHERE '{state}' IN ('completed', 'charged_back');

INSERT INTO vouchers.outbox (type, tenant_id, data)
SELECT 'order.placed', '{tenant}', '{{"id": "{order}"}}'::jsonb WHERE '{state}' IN ('completed', 'charged_back')
UNION ALL
SELECT 'redemption.rolled_back', '{tenant}', '{{"key": "{key}"}}' WHERE '{state}' = 'rolled_back';
"""


@dataclass(frozen=True)
class PlacedPurchase:
    """One purchase, and how to make its payment events. `session` is None while no checkout is noted."""

    key: str
    order: str
    customer: str
    user: str
    due: int
    session: str | None

    def event(self, effect: PaymentEffect = PaymentEffect.PAID, **changes: Any) -> PaymentEvent:
        """Make an event with an id of its own, as the webhook does: session and order are named, what was paid too."""
        values: dict[str, Any] = {
            "event_id": f"evt_{next(_numbers)}",
            "type": f"test.{effect}",
            "effect": effect,
            "raw": b'{"id": "evt"}',
            "session_id": self.session or f"cs_of_{self.order}",
            "order_id": self.order,
            "subscription_id": f"sub_{self.order}" if effect is PaymentEffect.PAID else None,
            "amount_minor": self.due if effect is PaymentEffect.PAID else None,
        }
        return PaymentEvent(**{**values, **changes})


async def place(
    database: Database,
    state: PurchaseState = PurchaseState.AWAITING_PAYMENT,
    *,
    credit: int = 10_500,
    held: int = 10_500,
    due: int = 39_500,
    user: str = "ahmed",
    tenant: str = "kestrel-pharmacy",
) -> PlacedPurchase:
    """Give a customer credit and let them buy with it: minor units. The ledger is sound afterwards."""
    n = next(_numbers)
    known = await rows(database, "SELECT id::text FROM customers WHERE user_id = %s", user)
    session = None if state in (PurchaseState.PENDING, PurchaseState.ROLLED_BACK) else f"cs_{n}"
    placed = PlacedPurchase(
        f"billing/buy-{n}", str(uuid4()), known[0][0] if known else str(uuid4()), user, due, session
    )
    sql = _ROWS.format(
        key=placed.key,
        order=placed.order,
        customer=placed.customer,
        user=user,
        tenant=tenant,
        credit=credit,
        held=held,
        due=due,
        total=held + due,
        state=state.value,
        status=_ORDER[state],
        holds="true" if state in _HOLDS else "false",
        hold=uuid4(),
        release=uuid4(),
        session="NULL" if session is None else f"'{session}'",
    )
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        await owner.execute(sql.encode())
    return placed


async def order_state(database: Database, placed: PlacedPurchase) -> tuple[str, str, int]:
    """State of a purchase, status of its order, and the customer's balance in minor units."""
    found = await rows(
        database,
        "SELECT p.state, o.status, (SELECT coalesce(sum(amount_minor), 0)::bigint FROM credit_ledger AS e "
        "WHERE e.customer_id = p.customer_id) FROM vouchers.purchase AS p JOIN orders AS o ON o.id = p.order_id "
        "WHERE p.key = %s",
        placed.key,
    )
    return found[0][0], found[0][1], found[0][2]


async def event_outcomes(database: Database) -> list[str]:
    """Return the outcome of each event, in the order in which they came."""
    return [
        row[0]
        for row in await rows(database, "SELECT outcome FROM vouchers.webhook_event ORDER BY received_at, event_id")
    ]


async def violated(database: Database) -> list[tuple[str, str]]:
    """Invariant and subject of what `verify` finds."""
    return [(one.invariant, one.subject) for one in await verify(database.runtime_url)]


async def mark_mismatches_settled(database: Database) -> None:
    """Do what a person does to settle a mismatched payment."""
    await rows(database, "UPDATE vouchers.webhook_event SET outcome = 'no_change' WHERE outcome = 'mismatch'")


async def entries(database: Database, placed: PlacedPurchase) -> list[tuple[int, int, str]]:
    return [
        (row[0], row[1], row[2])
        for row in await rows(
            database,
            "SELECT amount_omr, amount_minor, reason FROM credit_ledger WHERE order_id = %s ORDER BY created_at",
            placed.order,
        )
    ]

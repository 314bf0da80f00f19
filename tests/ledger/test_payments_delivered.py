"""An order counts as delivered when its event was written, whoever has inserted its subscription."""

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import rows
from tests.ledger.payment_events import DUE, dispute, first, mark_settled, outstanding, partly
from tests.ledger.purchase_helpers import events
from tests.ledger.purchase_rows import PlacedPurchase, order_state, place, violated
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Received

SUBSCRIPTION = "sub_of_both"


async def paid(ledger: Ledger, database: Database) -> PlacedPurchase:
    """A paid purchase whose subscription the Go service had inserted before, under an id of its own."""
    placed = await place(database)
    await rows(
        database,
        "INSERT INTO subscriptions (id, customer_id, tenant_id, stripe_subscription_id, plan_id) "
        "SELECT gen_random_uuid(), customer_id, tenant_id, %s, plan_id FROM orders",
        SUBSCRIPTION,
    )
    assert await ledger.receive(first(placed, subscription_id=SUBSCRIPTION)) is Received.APPLIED
    return placed


async def kinds(database: Database) -> list[str]:
    return [kind for kind, _, _ in await events(database)]


async def test_lost_and_won_dispute_of_an_order_with_the_go_services_subscription(
    ledger: Ledger, database: Database
) -> None:
    placed = await paid(ledger, database)
    assert await ledger.receive(dispute(placed, "lost", 9)) is Received.APPLIED
    assert await kinds(database) == ["order.placed", "order.charged_back"]
    assert await ledger.receive(dispute(placed, "won", 10)) is Received.APPLIED
    assert await kinds(database) == ["order.placed", "order.charged_back", "order.reinstated"]
    assert await violated(database) == []


@pytest.mark.parametrize("by_version_before", [False, True])
async def test_failed_refund_of_an_order_with_the_go_services_subscription(
    ledger18: Ledger, database18: Database, by_version_before: bool
) -> None:
    placed = await paid(ledger18, database18)
    if by_version_before:
        await rows(database18, "UPDATE vouchers.purchase SET order_placed = false")
    assert await ledger18.receive(partly(placed, DUE, 1)) is Received.APPLIED
    async with GoService.connect(database18.owner_url) as go:
        await go.spend(await go.customer(placed.user), 10)
    assert await ledger18.receive(partly(placed, 0, 2)) is Received.APPLIED
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert await outstanding(database18, placed) == (0, 10_000)
    assert await kinds(database18) == ["order.placed", "order.reinstated"]
    await mark_settled(database18)

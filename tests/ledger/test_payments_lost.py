"""A lost dispute ends its order, in whatever order its events come, and takes what was lost from unspent credit."""

import itertools
from dataclasses import replace

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import rows
from tests.ledger.payment_events import DUE, HELD, dispute, first, mark_settled, outstanding, partly
from tests.ledger.purchase_helpers import events
from tests.ledger.purchase_rows import entries, order_state, place, violated
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Payment, PaymentEffect, PurchaseState, Received

PENDING, AWAITING, COMPLETED, CANCELLED, ROLLED_BACK, REFUNDED, CHARGED_BACK = PurchaseState


async def details(database: Database) -> list[str]:
    return [one.detail for one in await verify(database.runtime_url)]


async def test_lost_dispute_ends_the_order_and_claws_back_unspent_credit(ledger: Ledger, database: Database) -> None:
    placed = await place(database, credit=12_000)
    await ledger.receive(first(placed))
    lost = dispute(placed, "lost", 9)
    assert [await ledger.receive(lost) for _ in range(2)] == [Received.APPLIED, Received.DUPLICATE]
    assert await order_state(database, placed) == ("charged_back", "charged_back", 0)
    assert [(minor, why) for _, minor, why in await entries(database, placed)] == [
        (-HELD, "order-payment"),
        (-1_500, "chargeback"),
    ]
    assert await outstanding(database, placed) == (5_000, 3_500)
    assert await rows(
        database, "SELECT p.reason, p.look_at = p.settled_at, s.status FROM vouchers.purchase p, subscriptions s"
    ) == [("PaymentLost", True, "canceled")]
    ((_, tenant, data),) = await events(database, "order.charged_back")
    assert (tenant, data["id"], data["lost_minor"], data["currency"]) == (
        "kestrel-pharmacy",
        placed.order,
        5_000,
        "OMR",
    )
    (found,) = await details(database)
    assert found == (
        f"3500 minor units of payment pi_{placed.order} (session {placed.session}) are outstanding, and the order is "
        "charged_back: collect them or write them off"
    )
    await mark_settled(database)
    assert await details(database) == []


async def test_lost_dispute_that_credit_covers_needs_no_person(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, credit=HELD + 6_000)
    await ledger18.receive(first(placed))
    assert await ledger18.receive(dispute(placed, "lost", 9)) is Received.APPLIED
    assert await order_state(database18, placed) == ("charged_back", "charged_back", 1_000)
    assert await outstanding(database18, placed) == (5_000, 0)
    assert await violated(database18) == []


async def test_second_lost_dispute_of_a_payment_needs_a_person(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, credit=HELD + 6_000)
    await ledger18.receive(first(placed))
    await ledger18.receive(dispute(placed, "lost", 9))
    second = dispute(placed, "lost", 10)
    assert second.dispute is not None
    second = replace(second, dispute=replace(second.dispute, dispute_id="du_second"))
    assert await ledger18.receive(second) is Received.NO_CHANGE
    assert ["decide what becomes of the order" in detail for detail in await details(database18)] == [True, True]
    await rows(database18, "UPDATE vouchers.dispute SET settled_at = now()")
    assert await details(database18) == []


async def test_lost_dispute_of_unknown_amount_loses_what_is_not_refunded(
    ledger18: Ledger, database18: Database
) -> None:
    placed = await place(database18)
    await ledger18.receive(first(placed))
    await ledger18.receive(partly(placed, 10_000, 1))
    assert await ledger18.receive(dispute(placed, "lost", 9, None)) is Received.APPLIED
    assert await outstanding(database18, placed) == (DUE - 10_000, DUE - 10_000)
    await mark_settled(database18)


async def test_dispute_that_is_won_after_all_completes_the_order_again(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, credit=12_000)
    await ledger18.receive(first(placed))
    await ledger18.receive(dispute(placed, "lost", 9))
    won = dispute(placed, "won", 10)
    assert [await ledger18.receive(won) for _ in range(2)] == [Received.APPLIED, Received.DUPLICATE]
    assert await order_state(database18, placed) == ("completed", "completed", 1_500)
    assert await outstanding(database18, placed) == (0, 0)
    assert await violated(database18) == []
    assert [kind for kind, _, _ in await events(database18)] == [
        "order.placed",
        "order.charged_back",
        "order.reinstated",
    ]
    # An event of before, under another id, changes nothing.
    assert await ledger18.receive(dispute(placed, "lost", 9)) is Received.NO_CHANGE
    assert await ledger18.receive(partly(placed, DUE, 1)) is Received.APPLIED
    assert await order_state(database18, placed) == ("refunded", "refunded", 12_000)


async def test_payment_and_lost_dispute_in_any_order_leave_no_delivered_order(
    ledger18: Ledger, database18: Database
) -> None:
    """An order whose payment was lost before it was known was never delivered: its credit is back."""
    for start in (PENDING, AWAITING):
        for n, order in enumerate(itertools.permutations(range(3))):
            placed = await place(database18, start, user=f"{start}-{n}")
            sent = (first(placed), dispute(placed, "needs_response", 1), dispute(placed, "lost", 9))
            for index in order:
                await ledger18.receive(sent[index])
            delivered = order.index(0) < order.index(2)
            expected = ("charged_back", "charged_back", 0) if delivered else ("cancelled", "cancelled", HELD)
            assert await order_state(database18, placed) == expected, order
            assert await outstanding(database18, placed) == ((5_000, 5_000) if delivered else (0, 0))
    await mark_settled(database18)
    assert await violated(database18) == []


@pytest.mark.parametrize("state", [CANCELLED, ROLLED_BACK, REFUNDED])
async def test_lost_dispute_of_an_ended_order_settles_its_mismatch(
    ledger18: Ledger, database18: Database, state: PurchaseState
) -> None:
    placed = await place(database18, state)
    before = await order_state(database18, placed)
    await ledger18.receive(first(placed, amount_minor=1))
    assert await ledger18.receive(dispute(placed, "lost", 9)) is Received.NO_CHANGE
    assert await order_state(database18, placed) == before
    assert await violated(database18) == []


async def test_lost_dispute_that_a_person_has_settled_before_keeps_the_order(
    ledger18: Ledger, database18: Database
) -> None:
    """A person had decided, when a lost dispute did not end an order."""
    placed = await place(database18, COMPLETED)
    await ledger18.receive(dispute(placed, "under_review", 1))
    await rows(database18, "UPDATE vouchers.dispute SET status = 'lost', settled_at = now()")
    assert await ledger18.receive(dispute(placed, "lost", 9)) is Received.NO_CHANGE
    assert await ledger18.receive(first(placed)) is Received.NO_CHANGE
    assert await order_state(database18, placed) == ("completed", "completed", 0)


async def test_dispute_is_reported_once_for_each_status(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, COMPLETED)
    await ledger18.receive(dispute(placed, "needs_response", 1))
    name = f"du_{placed.order}"
    found = await ledger18.unreported_disputes(["billing"], 10)
    assert [(one.dispute_id, one.key, one.status) for one in found] == [(name, placed.key, "needs_response")]
    assert await ledger18.unreported_disputes(["elsewhere"], 10) == []
    # It has another status before the first is recorded as reported.
    await ledger18.receive(dispute(placed, "won", 2))
    await ledger18.record_disputes_reported({name: "needs_response"})
    assert [one.status for one in await ledger18.unreported_disputes(["billing"], 10)] == ["won"]
    await ledger18.record_disputes_reported({name: "won"})
    assert await ledger18.unreported_disputes(["billing"], 10) == []


async def test_payment_known_by_its_intent_alone_is_found_for_a_dispute(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger18.receive(first(placed))
    lost = dispute(placed, "lost", 9, payment=Payment(f"pi_{placed.order}"), session_id=None, order_id=None)
    assert (lost.effect, await ledger18.receive(lost)) == (PaymentEffect.DISPUTED, Received.APPLIED)
    assert (await order_state(database18, placed))[0] == "charged_back"
    await mark_settled(database18)

"""Money that goes back and comes again: a failed refund and a lost dispute, in whatever order their events come."""

import itertools
from dataclasses import replace

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import rows
from tests.ledger.payment_events import DUE, HELD, dispute, first, mark_settled, outstanding, partly
from tests.ledger.purchase_helpers import add_credit, events
from tests.ledger.purchase_rows import PlacedPurchase, entries, event_outcomes, order_state, place, violated
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Payment, PaymentEffect, PurchaseState, Received

PENDING, AWAITING, COMPLETED, CANCELLED, ROLLED_BACK, REFUNDED, CHARGED_BACK = PurchaseState


async def spend(database: Database, placed: PlacedPurchase, whole_units: int) -> None:
    """Have the customer spend credit in the Go service's shop."""
    async with GoService.connect(database.owner_url) as go:
        await go.spend(await go.customer(placed.user), whole_units)


async def details(database: Database) -> list[str]:
    return [one.detail for one in await verify(database.runtime_url)]


async def refunded(ledger: Ledger, database: Database, **changes: int) -> PlacedPurchase:
    """A purchase that was paid and then refunded in full."""
    placed = await place(database, **changes)  # type: ignore[arg-type]
    await ledger.receive(first(placed))
    assert await ledger.receive(partly(placed, DUE, 1)) is Received.APPLIED
    return placed


async def test_failed_refund_completes_the_order_again(ledger: Ledger, database: Database) -> None:
    placed = await refunded(ledger, database)
    assert await order_state(database, placed) == ("refunded", "refunded", HELD)
    failed = partly(placed, 0, 2)
    assert [await ledger.receive(failed) for _ in range(2)] == [Received.APPLIED, Received.DUPLICATE]
    assert await order_state(database, placed) == ("completed", "completed", 0)
    assert [minor for _, minor, _ in await entries(database, placed)] == [-HELD, HELD, -HELD]
    assert await outstanding(database, placed) == (0, 0)
    assert await rows(database, "SELECT reason, look_at = settled_at FROM vouchers.purchase") == [("Reinstated", True)]
    assert await rows(database, "SELECT status FROM subscriptions") == [("canceled",)]
    assert [kind for kind, _, _ in await events(database)] == ["order.placed", "order.reinstated"]
    (found,) = await details(database)
    assert found == (
        f"payment pi_{placed.order} of session {placed.session} was refunded in full, and a refund has failed since: "
        "of 39500 minor units 0 are refunded; give the rest back in another way"
    )
    # Another refund succeeds: the order ends again, and its credit is released once more.
    assert await ledger.receive(partly(placed, DUE, 3)) is Received.APPLIED
    assert await order_state(database, placed) == ("refunded", "refunded", HELD)


async def test_failed_refund_with_spent_credit_leaves_the_rest_outstanding(
    ledger18: Ledger, database18: Database
) -> None:
    placed = await refunded(ledger18, database18)
    await spend(database18, placed, 6)
    assert await ledger18.receive(partly(placed, 0, 2)) is Received.APPLIED
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert [minor for _, minor, _ in await entries(database18, placed)] == [-HELD, HELD, -4_500]
    assert await outstanding(database18, placed) == (0, 6_000)
    assert len(await details(database18)) == 2
    assert dict(await ledger18.unsettled_payments()) == {"mismatch": 0, "dispute": 0, "outstanding": 1, "refund": 1}
    assert await ledger18.receive(partly(placed, DUE, 3)) is Received.APPLIED
    # What was taken is released, no more.
    assert await order_state(database18, placed) == ("refunded", "refunded", 4_500)
    assert await outstanding(database18, placed) == (0, 0)
    assert dict(await ledger18.unsettled_payments()) == {"mismatch": 0, "dispute": 0, "outstanding": 0, "refund": 0}


async def test_failed_refund_without_any_credit_left_releases_nothing_later(
    ledger18: Ledger, database18: Database
) -> None:
    """Nothing is taken: the entry that was released before must not be released again."""
    placed = await refunded(ledger18, database18)
    await spend(database18, placed, 11)
    assert await ledger18.receive(partly(placed, 0, 2)) is Received.APPLIED
    assert await outstanding(database18, placed) == (0, HELD)
    assert await ledger18.receive(partly(placed, DUE, 3)) is Received.APPLIED
    assert await order_state(database18, placed) == ("refunded", "refunded", -500)
    await add_credit(database18, placed.user, 500)


@pytest.mark.parametrize("start", [PENDING, AWAITING])
async def test_failed_refund_delivers_an_order_that_was_refunded_before_it_was_paid(
    ledger18: Ledger, database18: Database, start: PurchaseState
) -> None:
    placed = await place(database18, start)
    await ledger18.receive(partly(placed, DUE, 1))
    assert await ledger18.receive(partly(placed, 0, 2)) is Received.APPLIED
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert [kind for kind, _, _ in await events(database18)] == ["order.placed"]
    await mark_settled(database18)


@pytest.mark.parametrize("start", [AWAITING, ROLLED_BACK])
async def test_failed_refund_of_an_order_that_cannot_be_delivered_is_a_mismatch_again(
    ledger18: Ledger, database18: Database, start: PurchaseState
) -> None:
    """Its credit is spent, or its code given back: all or nothing. A refund that succeeds settles it."""
    placed = await place(database18, start)
    await ledger18.receive(partly(placed, DUE, 1))
    before = await order_state(database18, placed)
    await spend(database18, placed, 6)
    assert await ledger18.receive(partly(placed, 0, 2)) is Received.MISMATCH
    assert await order_state(database18, placed) == (*before[:2], before[2] - 6_000)
    assert [invariant for invariant, _ in await violated(database18)] == ["webhook_events", "payments"]
    await ledger18.receive(partly(placed, DUE, 3))
    assert await violated(database18) == []


async def test_failed_refund_of_a_second_payment_is_a_mismatch_again(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger18.receive(first(placed))
    for refunded_minor, minutes, expected in (
        (DUE, 1, Received.NO_CHANGE),
        (0, 2, Received.MISMATCH),
        (DUE, 3, Received.NO_CHANGE),
    ):
        event = partly(placed, refunded_minor, minutes, session_id="cs_second")
        assert event.payment is not None
        event = replace(event, payment=replace(event.payment, payment_intent="pi_second"))
        assert await ledger18.receive(event) is expected
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert await violated(database18) == []


async def test_refund_and_its_failure_in_any_order_of_events_end_completed(
    ledger18: Ledger, database18: Database
) -> None:
    """The response that was asked for last decides, whichever event brings it."""
    for n, order in enumerate(itertools.permutations(range(3))):
        placed = await place(database18, user=f"user-{n}")
        sent = (first(placed), partly(placed, DUE, 1), partly(placed, 0, 2))
        for index in order:
            await ledger18.receive(sent[index])
            await ledger18.receive(sent[index])
        assert (await order_state(database18, placed)) == ("completed", "completed", 0), order
        assert await outstanding(database18, placed) == (0, 0)
        placed_events = [data for _, _, data in await events(database18, "order.placed") if data["id"] == placed.order]
        assert len(placed_events) == 1, order
    await mark_settled(database18)


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


async def test_mismatch_that_a_lookup_settles_leaves_no_alarm(ledger18: Ledger, database18: Database) -> None:
    """The event's amount was in another currency; the session says what was paid."""
    placed = await place(database18)
    assert await ledger18.receive(first(placed, amount_minor=-1)) is Received.MISMATCH
    assert (await ledger18.unsettled_payments())["mismatch"] == 1
    looked = replace(first(placed), event_id="lookup:1", lookup=True)
    assert await ledger18.receive(looked) is Received.APPLIED
    assert await event_outcomes(database18) == ["no_change", "applied"]
    assert (await ledger18.unsettled_payments())["mismatch"] == 0
    assert await violated(database18) == []


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

"""A refund that fails brings its order back, in whatever order the events come. See also: test_payments_lost.py."""

import itertools
from dataclasses import replace

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import rows
from tests.ledger.payment_events import DUE, HELD, first, mark_settled, outstanding, partly
from tests.ledger.purchase_helpers import add_credit, events
from tests.ledger.purchase_rows import PlacedPurchase, entries, event_outcomes, order_state, place, violated
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PurchaseState, Received

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
        "of 39500 minor units 0 are refunded; give 39500 back in another way"
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

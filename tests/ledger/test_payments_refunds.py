"""Refunds and disputes act on the payment that they name, in whatever order their events come."""

import itertools
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from testbed.postgres import Database
from tests.ledger.helpers import rows
from tests.ledger.payment_events import DUE, HELD, NOON, dispute, first, partly
from tests.ledger.purchase_rows import event_outcomes, order_state, place, violated
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.payment.payments import receive
from voucher_operator.ledger.purchase.types import Payment, PaymentEffect, PurchaseState, Received

AWAITING, COMPLETED, ROLLED_BACK = PurchaseState.AWAITING_PAYMENT, PurchaseState.COMPLETED, PurchaseState.ROLLED_BACK
PAID, REFUNDED, PARTLY = PaymentEffect.PAID, PaymentEffect.REFUNDED, PaymentEffect.PARTLY_REFUNDED
SECOND: dict[str, Any] = {
    "session_id": "cs_second",
    "subscription_id": "sub_second",
    "payment": Payment("pi_second", "ch_second"),
}


async def payments(database: Database) -> list[tuple[Any, ...]]:
    """Session, names, amount and refunds of each payment, in the order of their sessions."""
    return await rows(
        database,
        "SELECT session_id, payment_intent, charge_id, amount_minor, refunded_minor, refunded, paid_at IS NOT NULL "
        "FROM vouchers.payment ORDER BY session_id",
    )


async def test_payment_is_recorded_with_its_names(ledger: Ledger, database: Database) -> None:
    placed = await place(database)
    payment = Payment("pi_1", "ch_1", "in_1", DUE, 0, NOON)
    assert await ledger.receive(placed.event(payment=payment)) is Received.APPLIED
    assert await rows(
        database,
        "SELECT session_id, order_id::text, payment_intent, charge_id, invoice_id, subscription_id, amount_minor, "
        "refunded_minor, refunded, paid_at IS NOT NULL, refunded_at, seen_at FROM vouchers.payment",
    ) == [
        (placed.session, placed.order, "pi_1", "ch_1", "in_1", f"sub_{placed.order}", DUE, 0, False, True, None, NOON)
    ]


async def test_duplicate_of_an_event_under_way_keeps_no_refund_from_it(ledger: Ledger, database: Database) -> None:
    """A copy is not judged again: if it held the event, a refund would skip it, and nobody would come back to it."""
    placed = await place(database)
    await ledger.receive(first(placed))
    second = placed.event(**SECOND)
    assert await ledger.receive(second) is Received.MISMATCH
    async with await psycopg.AsyncConnection.connect(database.runtime_url) as conn, conn.transaction():
        assert await receive(conn, second, "") is Received.DUPLICATE
        await ledger.receive(placed.event(REFUNDED, **SECOND))
    assert await event_outcomes(database) == ["applied", "no_change", "no_change"]


async def test_refund_of_a_second_payment_settles_that_payment_alone(ledger: Ledger, database: Database) -> None:
    placed = await place(database)
    assert await ledger.receive(first(placed)) is Received.APPLIED
    assert await ledger.receive(placed.event(**SECOND)) is Received.MISMATCH
    (found,) = await verify(database.runtime_url)
    assert (found.invariant, found.subject) == (
        "webhook_events",
        f"redemption {placed.key}, customer {placed.customer}",
    )
    assert "was paid by payment pi_second of session cs_second, which is completed" in found.detail
    # Its refund names the order and the payment, and as the payment is known, no session.
    assert await ledger.receive(placed.event(REFUNDED, **{**SECOND, "session_id": None})) is Received.NO_CHANGE
    assert await order_state(database, placed) == ("completed", "completed", 0)
    assert await rows(database, "SELECT status FROM subscriptions") == [("active",)]
    assert await rows(database, "SELECT look_at > settled_at FROM vouchers.purchase") == [(True,)]
    assert await event_outcomes(database) == ["applied", "no_change", "no_change"]
    assert [(row[0], row[5]) for row in await payments(database)] == [(placed.session, False), ("cs_second", True)]


async def test_refund_of_the_first_payment_leaves_the_second_unsettled(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger18.receive(first(placed))
    await ledger18.receive(placed.event(**SECOND))
    assert await ledger18.receive(first(placed, REFUNDED)) is Received.APPLIED
    assert await order_state(database18, placed) == ("refunded", "refunded", HELD)
    assert await violated(database18) == [
        (
            "webhook_events",
            f"redemption {placed.key}, customer {placed.customer}",
        )
    ]
    assert await ledger18.receive(placed.event(REFUNDED, **SECOND)) is Received.NO_CHANGE


async def test_refund_of_an_unknown_payment_changes_nothing(ledger: Ledger, database: Database) -> None:
    placed = await place(database)
    await ledger.receive(placed.event())
    assert await ledger.receive(placed.event(REFUNDED, session_id=None)) is Received.NO_CHANGE
    unknown = placed.event(REFUNDED, session_id=None, payment=Payment("pi_unknown"))
    assert await ledger.receive(unknown) is Received.NO_CHANGE
    assert await order_state(database, placed) == ("completed", "completed", 0)


async def test_events_of_two_payments_in_any_order_end_the_same(ledger18: Ledger, database18: Database) -> None:
    """The second payment is given back: the order is as if it had never been, and nobody has to look."""
    for n, order in enumerate(itertools.permutations(range(3))):
        placed = await place(database18, user=f"user-{n}")
        second: dict[str, Any] = {"session_id": f"cs_second_{n}", "payment": Payment(f"pi_second_{n}")}
        events = (first(placed), placed.event(**second), placed.event(REFUNDED, **second))
        for index in order:
            await ledger18.receive(events[index])
        assert await order_state(database18, placed) == ("completed", "completed", 0), order
        assert await verify(database18.runtime_url) == [], order


@pytest.mark.parametrize("state", [AWAITING, COMPLETED])
async def test_refund_of_a_purchase_without_payment_rows_is_matched_by_session(
    ledger: Ledger, database: Database, state: PurchaseState
) -> None:
    """The session that Stripe names is compared with the purchase's: a second one's refund is not its own."""
    placed = await place(database, state)
    before = await order_state(database, placed)
    assert await ledger.receive(placed.event(REFUNDED, **SECOND)) is Received.NO_CHANGE
    assert await order_state(database, placed) == before
    assert await ledger.receive(first(placed, REFUNDED)) is Received.APPLIED
    assert await order_state(database, placed) == ("refunded", "refunded", HELD)


async def test_two_payments_of_a_rolled_back_order_need_two_refunds(ledger18: Ledger, database18: Database) -> None:
    """Each waits for its own refund."""
    placed = await place(database18, ROLLED_BACK)
    assert await ledger18.receive(first(placed)) is Received.MISMATCH
    assert await ledger18.receive(first(placed, REFUNDED)) is Received.APPLIED
    assert await ledger18.receive(placed.event(**SECOND)) is Received.MISMATCH
    assert [invariant for invariant, _ in await violated(database18)] == ["webhook_events"]
    assert await ledger18.receive(placed.event(REFUNDED, **SECOND)) is Received.APPLIED
    assert await order_state(database18, placed) == ("rolled_back", "failed", HELD)


async def test_partial_refunds_add_up(ledger: Ledger, database: Database) -> None:
    placed = await place(database)
    await ledger.receive(first(placed))
    for refunded in (10_000, 30_000):
        event = partly(placed, refunded)
        assert await ledger.receive(event) is Received.NO_CHANGE
        assert await ledger.receive(event) is Received.DUPLICATE
        assert await order_state(database, placed) == ("completed", "completed", 0)
        assert [row[3:6] for row in await payments(database)] == [(DUE, refunded, False)]
    # An event of before comes again under another name.
    assert await ledger.receive(partly(placed, 10_000)) is Received.NO_CHANGE
    assert [row[3:6] for row in await payments(database)] == [(DUE, 30_000, False)]
    assert await ledger.receive(partly(placed, DUE)) is Received.APPLIED
    assert await order_state(database, placed) == ("refunded", "refunded", HELD)
    assert [row[3:6] for row in await payments(database)] == [(DUE, DUE, True)]


async def test_latest_refund_amount_by_time_asked_wins(ledger: Ledger, database: Database) -> None:
    """A refund that fails lowers what was refunded; an answer that was asked for before is no news."""
    placed = await place(database)
    await ledger.receive(first(placed))
    for minutes, refunded, expected in ((0, 10_000, 10_000), (2, 4_000, 4_000), (1, 20_000, 4_000), (3, 0, 0)):
        assert await ledger.receive(partly(placed, refunded, minutes)) is Received.NO_CHANGE
        assert [row[4] for row in await payments(database)] == [expected]
    assert await ledger.receive(partly(placed, DUE, 2)) is Received.NO_CHANGE
    assert await order_state(database, placed) == ("completed", "completed", 0)


async def test_partial_refund_before_its_payment_event_is_recorded(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    assert await ledger18.receive(partly(placed, 10_000, 1)) is Received.NO_CHANGE
    assert await order_state(database18, placed) == ("awaiting_payment", "pending", 0)
    assert await ledger18.receive(first(placed)) is Received.APPLIED
    assert [row[3:] for row in await payments(database18)] == [(DUE, 10_000, False, True)]
    assert await order_state(database18, placed) == ("completed", "completed", 0)


async def test_lookup_result_is_recorded_without_an_event(ledger: Ledger, database: Database) -> None:
    placed = await place(database, COMPLETED)
    looked = replace(partly(placed, 10_000, 1), lookup=True)
    for _ in range(2):
        await ledger.record_payment(looked)
    assert await payments(database) == [
        (placed.session, f"pi_{placed.order}", f"ch_{placed.order}", DUE, 10_000, False, False)
    ]
    assert await event_outcomes(database) == []
    await ledger.record_payment(replace(looked, session_id="cs_of_nobody", order_id=None, payment=None))


async def test_money_of_another_currency_is_recorded_without_its_amount(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    assert await ledger18.receive(first(placed, amount_minor=-1)) is Received.MISMATCH
    assert [row[3] for row in await payments(database18)] == [None]
    assert await ledger18.receive(first(placed, REFUNDED)) is Received.APPLIED


async def disputes(database: Database) -> list[tuple[Any, ...]]:
    return await rows(
        database, "SELECT dispute_id, session_id, charge_id, amount_minor, status, reason FROM vouchers.dispute"
    )


async def test_open_dispute_is_recorded_and_reported_by_verify(ledger: Ledger, database: Database) -> None:
    placed = await place(database)
    await ledger.receive(first(placed))
    assert await ledger.receive(dispute(placed, "needs_response", 0)) is Received.NO_CHANGE
    name = f"du_{placed.order}"
    assert await disputes(database) == [(name, placed.session, "ch_1", 5_000, "needs_response", "fraudulent")]
    (found,) = await verify(database.runtime_url)
    assert (found.invariant, found.detail) == (
        "payments",
        f"dispute {name} of payment pi_{placed.order} is needs_response (5000 minor units): answer it at Stripe",
    )
    assert await ledger.receive(dispute(placed, "won", 9)) is Received.NO_CHANGE
    assert await order_state(database, placed) == ("completed", "completed", 0)


async def test_won_dispute_needs_no_action(ledger18: Ledger, database18: Database) -> None:
    """Its events come in any order; of two of one second the one that ends it counts."""
    events = (("needs_response", 0), ("under_review", 1), ("won", 1))
    for n, order in enumerate(itertools.permutations(events)):
        await rows(database18, "TRUNCATE vouchers.payment CASCADE")
        placed = await place(database18, COMPLETED, user=f"user-{n}")
        for status, minutes in order:
            await ledger18.receive(dispute(placed, status, minutes))
        assert [row[4] for row in await disputes(database18)] == ["won"], order
        assert await verify(database18.runtime_url) == []

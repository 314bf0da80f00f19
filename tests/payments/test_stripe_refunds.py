"""Refund and dispute events: each is bound to its payment by a request to Stripe, never by the order."""

import itertools
from typing import Any

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import Fault, ScriptedStripe
from tests.ledger.helpers import rows
from tests.payments.helpers import (
    INVOICE_PAYMENTS,
    SESSIONS,
    open_checkout,
    place,
    receive_event,
    reload_purchase,
    session_of,
    settings,
)
from voucher_operator import telemetry
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PaymentEffect, Purchase, PurchaseState, Received
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import PaymentProcessorUnavailableError
from voucher_operator.resources.reasons import Reason

DUE = 9_000


async def payments(database: Database) -> list[tuple[Any, ...]]:
    return await rows(
        database, "SELECT session_id, amount_minor, refunded_minor, refunded FROM vouchers.payment ORDER BY created_at"
    )


async def test_payment_is_recorded_with_its_intent_and_charge(
    checkout: Checkout, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    charge, session = stripe.payment_of(session_of(awaiting)), stripe.only_session()
    names = "session_id, payment_intent, charge_id, invoice_id, subscription_id, amount_minor"
    assert await rows(database18, f"SELECT {names} FROM vouchers.payment") == [
        (session["id"], charge["payment_intent"], charge["id"], session["invoice"], session["subscription"], DUE)
    ]


async def test_payment_is_applied_when_its_ids_cannot_be_read(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    """A later lookup reads them."""
    stripe.fail(INVOICE_PAYMENTS, Fault.UNAVAILABLE)
    assert await receive_event(checkout, stripe.pay(session_of(awaiting))) is Received.APPLIED
    assert await rows(database18, "SELECT payment_intent FROM vouchers.payment") == [(None,)]
    assert await checkout.look_up(await reload_purchase(ledger, awaiting)) is Received.NO_CHANGE
    intent = stripe.payment_of(session_of(awaiting))["payment_intent"]
    assert await rows(database18, "SELECT payment_intent FROM vouchers.payment") == [(intent,)]


async def test_refund_of_a_second_payment_settles_that_payment_alone(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    second = stripe.second_session(session_of(awaiting))["id"]
    assert await receive_event(checkout, stripe.pay(session_of(awaiting))) is Received.APPLIED
    assert await receive_event(checkout, stripe.pay(second)) is Received.MISMATCH
    assert await receive_event(checkout, stripe.refund(second)) is Received.NO_CHANGE
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED
    assert await ledger.balance(awaiting.user_id) == 0
    assert await payments(database18) == [(session_of(awaiting), DUE, 0, False), (second, DUE, DUE, True)]
    assert await rows(database18, "SELECT status FROM subscriptions") == [("active",)]


async def test_second_payment_and_its_refund_in_any_order_leave_the_order_completed(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, database18: Database
) -> None:
    for order in itertools.permutations(range(3)):
        bought = await checkout.advance(await place(ledger, database18))
        second = stripe.second_session(session_of(bought))["id"]
        events = (stripe.pay(session_of(bought)), stripe.pay(second), stripe.refund(second))
        for index in order:
            await receive_event(checkout, events[index])
        assert (await reload_purchase(ledger, bought)).state is PurchaseState.COMPLETED, order
        assert await verify(database18.admin_url) == [], order


async def test_refund_of_a_purchase_without_payment_rows_is_matched(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    second = stripe.second_session(session_of(awaiting))["id"]
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    await receive_event(checkout, stripe.pay(second))
    await rows(database18, "TRUNCATE vouchers.payment CASCADE")
    assert await receive_event(checkout, stripe.refund(second)) is Received.NO_CHANGE
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED
    assert await receive_event(checkout, stripe.refund(session_of(awaiting))) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED


async def test_partial_refunds_add_up(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    """The events come in reverse order, and each reads the present amount at Stripe."""
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    first, second = stripe.refund(session_of(awaiting), 2_000), stripe.refund(session_of(awaiting), 3_000)
    for event in (second, first, first):
        await receive_event(checkout, event)
        assert await payments(database18) == [(session_of(awaiting), DUE, 5_000, False)]
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED
    assert await receive_event(checkout, stripe.refund(session_of(awaiting), 4_000)) is Received.APPLIED
    assert await payments(database18) == [(session_of(awaiting), DUE, DUE, True)]
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED
    assert await ledger.balance(awaiting.user_id) == 10_000


async def test_lookup_records_a_partial_refund_without_webhook(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    stripe.refund(session_of(awaiting), 2_000)
    assert await checkout.look_up(await reload_purchase(ledger, awaiting)) is Received.NO_CHANGE
    assert await payments(database18) == [(session_of(awaiting), DUE, 2_000, False)]
    assert await rows(database18, "SELECT outcome FROM vouchers.webhook_event") == [("applied",)]


async def test_refund_that_fails_lowers_what_was_refunded(
    checkout: Checkout,
    ledger: Ledger,
    stripe: ScriptedStripe,
    awaiting: Purchase,
    database18: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    await receive_event(checkout, stripe.refund(session_of(awaiting), 2_000))
    assert await receive_event(checkout, stripe.refund_fails(session_of(awaiting), 2_000)) is Received.NO_CHANGE
    assert await payments(database18) == [(session_of(awaiting), DUE, 0, False)]
    assert [one.message for one in caplog.records if one.levelname == "WARNING"] == [
        "a refund failed: refund the money in another way"
    ]
    await receive_event(checkout, stripe.refund(session_of(awaiting)))
    assert await receive_event(checkout, stripe.refund_fails(session_of(awaiting), DUE)) is Received.APPLIED
    found = await reload_purchase(ledger, awaiting)
    assert (found.state, found.reason) == (PurchaseState.COMPLETED, Reason.REINSTATED)
    assert await ledger.balance(awaiting.user_id) == 0
    assert [one.invariant for one in await verify(database18.admin_url)] == ["payments"]
    await receive_event(checkout, stripe.refund(session_of(awaiting)))
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED


async def test_key_without_charge_rights_uses_the_event_amount(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    stripe.shows_charges = False
    assert await receive_event(checkout, stripe.pay(session_of(awaiting))) is Received.APPLIED
    for amount, expected in ((2_000, 2_000), (DUE - 2_000, DUE)):
        await receive_event(checkout, stripe.refund(session_of(awaiting), amount))
        assert [row[2] for row in await payments(database18)] == [expected]
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED


async def test_refund_event_is_retried_when_its_session_cannot_be_read(
    checkout: Checkout, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    refund = stripe.refund(session_of(awaiting))
    stripe.fail(SESSIONS, Fault.UNAVAILABLE)
    with pytest.raises(PaymentProcessorUnavailableError):
        await checkout.payment_event(refund, b"{}")
    assert await receive_event(checkout, refund) is Received.APPLIED


async def test_refund_of_a_manual_subscription_changes_nothing(
    checkout: Checkout,
    ledger: Ledger,
    stripe: ScriptedStripe,
    awaiting: Purchase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A subscription that somebody made by hand with the order's labels: its refund changes nothing."""
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    second = stripe.second_session(session_of(awaiting))["id"]
    stripe.pay(second)
    refund = stripe.refund(second)
    del stripe.sessions[second]
    assert await receive_event(checkout, refund) is Received.NO_CHANGE
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED
    assert "a refund or dispute belongs to no checkout of its order: check it at Stripe" in caplog.messages


async def test_refund_of_another_sovereign_causes_no_request(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    async with open_checkout(ledger, settings(stripe.url, sovereign="other.example.com")) as other:
        asked = stripe.count(f"GET {SESSIONS}")
        read = await other.payment_event(stripe.refund(session_of(awaiting)), b"{}")
        assert (read.sovereign, read.session_id, stripe.count(f"GET {SESSIONS}")) == (
            "omantel.example.com",
            None,
            asked,
        )


async def test_dispute_is_recorded_and_counted_once(
    checkout: Checkout,
    ledger: Ledger,
    stripe: ScriptedStripe,
    awaiting: Purchase,
    database18: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def counted() -> float:
        found = telemetry.REGISTRY.get_sample_value("voucher_operator_payment_disputes_total")
        assert found is not None
        return found

    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    before, opened = counted(), stripe.dispute(session_of(awaiting))
    assert [await receive_event(checkout, opened) for _ in range(2)] == [Received.NO_CHANGE, Received.DUPLICATE]
    assert counted() == before + 1
    assert "a payment of an order is disputed: respond at Stripe" in caplog.messages
    charge = stripe.payment_of(session_of(awaiting))
    assert await rows(
        database18, "SELECT session_id, payment_intent, charge_id, amount_minor, status, reason FROM vouchers.dispute"
    ) == [(session_of(awaiting), charge["payment_intent"], charge["id"], DUE, "needs_response", "fraudulent")]
    assert [one.invariant for one in await verify(database18.admin_url)] == ["payments"]
    assert await receive_event(checkout, stripe.dispute(session_of(awaiting), "won", "closed")) is Received.NO_CHANGE
    assert counted() == before + 1
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED


async def test_lost_dispute_ends_the_order(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    """Withdrawn funds are no loss yet. The events of a dispute come in any order; the lost one decides."""
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    opened = stripe.dispute(session_of(awaiting))
    withdrawn = stripe.dispute(session_of(awaiting), "needs_response", "funds_withdrawn")
    assert await receive_event(checkout, withdrawn) is Received.NO_CHANGE
    lost = stripe.dispute(session_of(awaiting), "lost", "closed")
    assert await receive_event(checkout, lost) is Received.APPLIED
    assert await receive_event(checkout, opened) is Received.NO_CHANGE
    found = await reload_purchase(ledger, awaiting)
    assert (found.state, found.reason) == (PurchaseState.CHARGED_BACK, Reason.PAYMENT_LOST)
    (violation,) = await verify(database18.admin_url)
    assert f"{DUE} minor units of payment" in violation.detail
    reinstated = stripe.dispute(session_of(awaiting), "won", "funds_reinstated")
    assert await receive_event(checkout, reinstated) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED


async def test_dispute_of_a_later_month_is_kept_without_effect(
    checkout: Checkout, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    charge = stripe.next_month(session_of(awaiting))["data"]["object"]
    sent = stripe.event("charge.dispute.created", {"id": "du_1", "payment_intent": charge["payment_intent"]})
    read = await checkout.payment_event(sent, b"{}")
    assert (read.effect, await checkout.receive(read)) == (PaymentEffect.NONE, Received.UNKNOWN)
    assert await rows(database18, "SELECT dispute_id FROM vouchers.dispute") == []

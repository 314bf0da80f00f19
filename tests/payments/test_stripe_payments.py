"""Webhook events and lookups lead to the same result, in any order, also when events are lost."""

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
from voucher_operator.resources.errors import PaymentProcessorUnavailableError, PaymentRejectedError
from voucher_operator.resources.reasons import Reason


async def paid_before(database: Database, days: float) -> None:
    """Let so much time have passed since the payment."""
    shift = "SELECT clock_timestamp() - make_interval(secs => %s) - settled_at FROM vouchers.purchase"
    ((by,),) = await rows(database, shift, days * 86_400)
    await rows(database, "UPDATE vouchers.purchase SET settled_at = settled_at + %s, look_at = look_at + %s", by, by)


def mismatches() -> float:
    """Return what the alert is made of; it is there before the first one."""
    found = telemetry.REGISTRY.get_sample_value("voucher_operator_payment_mismatches_total")
    assert found is not None
    return found


async def test_lookup_completes_an_order_whose_webhook_was_lost(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    assert await checkout.look_up(awaiting) is Received.NO_CHANGE
    paid = stripe.pay(session_of(awaiting))
    assert await checkout.look_up(awaiting) is Received.APPLIED
    assert await checkout.look_up(awaiting) is Received.DUPLICATE
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED
    assert await receive_event(checkout, paid) is Received.NO_CHANGE


async def test_lookup_of_an_open_session_writes_nothing(checkout: Checkout, ledger: Ledger, awaiting: Purchase) -> None:
    before = await reload_purchase(ledger, awaiting)
    assert await checkout.look_up(awaiting) is Received.NO_CHANGE
    assert await reload_purchase(ledger, awaiting) == before


async def test_session_with_the_former_sovereign_name_is_completed_by_lookup(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, database18: Database
) -> None:
    async with open_checkout(ledger, settings(stripe.url, sovereign="former.example.com")) as former:
        awaiting = await former.advance(await place(ledger, database18))
    paid = stripe.pay(session_of(awaiting))
    assert await receive_event(checkout, paid) is Received.FOREIGN
    assert await checkout.look_up(awaiting) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED


async def test_lookup_cancels_an_order_with_expired_session(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.expire(session_of(awaiting))
    assert await checkout.look_up(awaiting) is Received.APPLIED
    ended = await reload_purchase(ledger, awaiting)
    assert (ended.state, ended.reason) == (PurchaseState.CANCELLED, Reason.CHECKOUT_EXPIRED)
    assert await ledger.balance(awaiting.user_id) == 10_000


async def test_delayed_payment_completes_the_order_when_it_succeeds(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    completed = await checkout.payment_event(stripe.pay(session_of(awaiting), later=True), b"{}")
    assert completed.effect is PaymentEffect.PROCESSING
    assert await checkout.receive(completed) is Received.NO_CHANGE
    assert await checkout.look_up(awaiting) is Received.NO_CHANGE
    arrived = await checkout.payment_event(stripe.payment_succeeds(session_of(awaiting)), b"{}")
    assert await checkout.receive(arrived) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED


async def test_delayed_payment_that_fails_cancels_the_order(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.pay(session_of(awaiting), later=True)
    bounced = await checkout.payment_event(stripe.payment_fails(session_of(awaiting)), b"{}")
    assert await checkout.receive(bounced) is Received.APPLIED
    ended = await reload_purchase(ledger, awaiting)
    assert (ended.state, ended.reason) == (PurchaseState.CANCELLED, Reason.PAYMENT_FAILED)


async def test_lookup_cancels_an_order_whose_delayed_payment_failed(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.pay(session_of(awaiting), later=True)
    stripe.fail(INVOICE_PAYMENTS, Fault.FORBIDDEN)
    assert await checkout.look_up(awaiting) is Received.NO_CHANGE
    assert await checkout.look_up(awaiting) is Received.DUPLICATE
    bounced = stripe.payment_fails(session_of(awaiting))
    assert await checkout.look_up(awaiting) is Received.APPLIED
    ended = await reload_purchase(ledger, awaiting)
    assert (ended.state, ended.reason) == (PurchaseState.CANCELLED, Reason.PAYMENT_FAILED)
    assert await ledger.balance(awaiting.user_id) == 10_000
    assert await receive_event(checkout, bounced) is Received.NO_CHANGE


async def test_full_refund_releases_the_credit(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    assert await ledger.balance(awaiting.user_id) == 0
    part = await checkout.payment_event(stripe.refund(session_of(awaiting), 4_000), b"{}")
    assert (part.effect, await checkout.receive(part)) == (PaymentEffect.PARTLY_REFUNDED, Received.NO_CHANGE)
    assert await ledger.balance(awaiting.user_id) == 0
    rest = await checkout.payment_event(stripe.refund(session_of(awaiting), 5_000), b"{}")
    assert (rest.effect, rest.order_id) == (PaymentEffect.REFUNDED, awaiting.order_id)
    assert await checkout.receive(rest) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED
    assert await ledger.balance(awaiting.user_id) == 10_000
    assert stripe.charged == 0


async def test_refund_of_a_later_month_changes_nothing(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    later = await checkout.payment_event(stripe.next_month(session_of(awaiting)), b"{}")
    assert later.effect is PaymentEffect.NONE
    await checkout.receive(later)
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED


async def test_lookup_finds_payment_and_refund_without_webhooks(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    paid = stripe.pay(session_of(awaiting))
    stripe.refund(session_of(awaiting))
    assert await checkout.look_up(awaiting) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED
    assert await ledger.balance(awaiting.user_id) == 10_000
    assert await receive_event(checkout, paid) is Received.NO_CHANGE


async def test_lookup_finds_a_refund_without_webhook(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    """Asked rarely, and more rarely with its age: what was paid is seldom refunded."""
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    assert await ledger.purchases_to_check(-1, 10) == []
    for days, again in ((1.1, True), (2.0, False), (2.3, True), (119, True), (239, True), (900, False)):
        await paid_before(database18, days)
        found = await ledger.purchases_to_check(300, 10)
        assert [one.state for one in found] == [PurchaseState.COMPLETED] * again, days
        for one in found:
            assert await checkout.look_up(one) is Received.NO_CHANGE
    assert await rows(database18, "SELECT look_at FROM vouchers.purchase") == [(None,)]
    assert await rows(database18, "SELECT outcome FROM vouchers.webhook_event") == [("applied",)]
    stripe.refund(session_of(awaiting))
    assert await checkout.look_up(await reload_purchase(ledger, awaiting)) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED
    assert await ledger.balance(awaiting.user_id) == 10_000


async def test_lookup_reports_a_mismatched_payment(
    checkout: Checkout,
    ledger: Ledger,
    stripe: ScriptedStripe,
    awaiting: Purchase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stripe.sessions[session_of(awaiting)]["amount_total"] += 10
    stripe.pay(session_of(awaiting))
    before = mismatches()
    assert await checkout.look_up(awaiting) is Received.MISMATCH
    assert mismatches() == before + 1
    (said,) = caplog.records
    assert "does not match" in said.message
    assert vars(said)["key"] == awaiting.key
    stripe.refund(session_of(awaiting))
    assert await checkout.look_up(awaiting) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.REFUNDED


async def test_key_without_invoice_rights_still_settles_payments(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.pay(session_of(awaiting))
    stripe.fail(INVOICE_PAYMENTS, Fault.FORBIDDEN)
    assert await checkout.look_up(awaiting) is Received.APPLIED
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.COMPLETED


async def test_refund_event_is_retried_when_stripe_cannot_be_asked(
    checkout: Checkout, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.pay(session_of(awaiting))
    refund = stripe.refund(session_of(awaiting))
    stripe.fail(INVOICE_PAYMENTS, Fault.UNAVAILABLE, Fault.UNAUTHORIZED)
    with pytest.raises(PaymentProcessorUnavailableError):
        await checkout.payment_event(refund, b"{}")
    with pytest.raises(PaymentRejectedError):
        await checkout.payment_event(refund, b"{}")
    assert (await checkout.payment_event(refund, b"{}")).effect is PaymentEffect.REFUNDED


async def test_failed_lookup_changes_nothing(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.pay(session_of(awaiting))
    path = f"{SESSIONS}/{awaiting.session_id}"
    stripe.fail(path, Fault.GATEWAY, Fault.EMPTY, Fault.UNAUTHORIZED)
    stripe.fail(INVOICE_PAYMENTS, Fault.EMPTY)
    for _ in range(2):
        with pytest.raises(PaymentProcessorUnavailableError):
            await checkout.look_up(awaiting)
    with pytest.raises(PaymentRejectedError):
        await checkout.look_up(awaiting)
    with pytest.raises(PaymentProcessorUnavailableError):
        await checkout.look_up(awaiting)
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.AWAITING_PAYMENT


async def test_purchase_without_session_is_not_looked_up(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    assert await checkout.look_up(await place(ledger, database18)) is Received.NO_CHANGE
    assert stripe.requests == []


async def test_payment_of_another_sovereign_is_kept_without_effect(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    event = stripe.pay(session_of(awaiting))
    event["data"]["object"]["metadata"]["sovereign"] = "other.example.com"
    assert await receive_event(checkout, event) is Received.FOREIGN
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.AWAITING_PAYMENT
    assert [one.invariant for one in await verify(database18.admin_url)] == ["webhook_events"]
    assert await checkout.look_up(awaiting) is Received.APPLIED

"""A refunded or failed order ends its subscription at Stripe: the card is not charged next month."""

from datetime import timedelta

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import Fault, ScriptedStripe
from tests.ledger.helpers import rows
from tests.ledger.payment_events import mark_settled
from tests.payments.helpers import place, receive_event, reload_purchase, session_of
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState, Received
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import PaymentProcessorUnavailableError, PaymentRejectedError

SUBSCRIPTIONS = "/v1/subscriptions"


async def refunded(checkout: Checkout, stripe: ScriptedStripe, purchase: Purchase) -> None:
    await receive_event(checkout, stripe.pay(session_of(purchase)))
    assert await receive_event(checkout, stripe.refund(session_of(purchase))) is Received.APPLIED


def subscription_statuses(stripe: ScriptedStripe) -> list[str]:
    return [one["status"] for one in stripe.subscriptions.values()]


async def test_refunded_order_cancels_its_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    other = await checkout.advance(await place(ledger, database18))
    await receive_event(checkout, stripe.pay(session_of(other)))
    await refunded(checkout, stripe, awaiting)
    (found,) = await ledger.purchases_to_check(300, 10)
    assert (found.key, found.state) == (awaiting.key, PurchaseState.REFUNDED)
    assert subscription_statuses(stripe) == ["active", "active"]
    await checkout.look_up(found)
    assert subscription_statuses(stripe) == ["active", "canceled"]
    assert await ledger.purchases_to_check(-1, 10) == []
    assert await reload_purchase(ledger, awaiting) == found


async def test_refund_before_its_payment_event_cancels_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    """The ledger does not know the subscription: it is found by the customer at Stripe."""
    stripe.pay(session_of(awaiting))
    await receive_event(checkout, stripe.refund(session_of(awaiting)))
    (found,) = await ledger.purchases_to_check(300, 10)
    await checkout.look_up(found)
    assert subscription_statuses(stripe) == ["canceled"]


async def test_failed_payment_cancels_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    stripe.pay(session_of(awaiting), later=True)
    await receive_event(checkout, stripe.payment_fails(session_of(awaiting)))
    (found,) = await ledger.purchases_to_check(300, 10)
    await checkout.look_up(found)
    assert subscription_statuses(stripe) == ["canceled"]
    assert await ledger.purchases_to_check(-1, 10) == []


async def test_lost_payment_cancels_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    await receive_event(checkout, stripe.pay(session_of(awaiting)))
    assert await receive_event(checkout, stripe.dispute(session_of(awaiting), "lost", "closed")) is Received.APPLIED
    (found,) = await ledger.purchases_to_check(300, 10)
    assert found.state is PurchaseState.CHARGED_BACK
    await checkout.look_up(found)
    assert subscription_statuses(stripe) == ["canceled"]
    assert await ledger.purchases_to_check(-1, 10) == []
    await mark_settled(database18)


async def test_failed_refund_still_cancels_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    """The refund failed before anybody had cancelled it: the customer has a message that it has ended."""
    await refunded(checkout, stripe, awaiting)
    await receive_event(checkout, stripe.refund_fails(session_of(awaiting), awaiting.due_minor))
    (found,) = await ledger.purchases_to_check(300, 10)
    assert found.state is PurchaseState.COMPLETED
    assert await checkout.look_up(found) is Received.NO_CHANGE
    assert subscription_statuses(stripe) == ["canceled"]
    await mark_settled(database18)


async def test_expired_checkout_needs_no_cancellation(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    await receive_event(checkout, stripe.expire(session_of(awaiting)))
    assert await ledger.purchases_to_check(-1, 10) == []


async def test_cancellation_is_retried_until_it_succeeds(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    await refunded(checkout, stripe, awaiting)
    stripe.fail(SUBSCRIPTIONS, Fault.GATEWAY, Fault.FORBIDDEN)
    (name,) = stripe.subscriptions
    stripe.fail(f"{SUBSCRIPTIONS}/{name}", Fault.CUT_AFTER)
    for error in (PaymentProcessorUnavailableError, PaymentRejectedError, PaymentProcessorUnavailableError):
        (found,) = await ledger.purchases_to_check(0, 10)
        with pytest.raises(error):
            await checkout.look_up(found)
    assert await ledger.purchases_to_check(300, 10) != []
    assert await ledger.purchases_to_check(300, 10) == []
    await checkout.look_up(found)
    assert await ledger.purchases_to_check(-1, 10) == []
    assert stripe.count(f"DELETE {SUBSCRIPTIONS}/{name}") == 1


async def test_late_payment_keeps_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    """A stale lookup result that says it has ended changes nothing in the ledger."""
    stripe.pay(session_of(awaiting), later=True)
    await receive_event(checkout, stripe.payment_fails(session_of(awaiting)))
    assert await receive_event(checkout, stripe.payment_succeeds(session_of(awaiting))) is Received.APPLIED
    await ledger.record_ended(awaiting.key)
    assert await rows(database18, "SELECT look_at - settled_at FROM vouchers.purchase") == [(timedelta(days=1),)]

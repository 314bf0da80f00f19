"""An order that came to nothing ends at Stripe, too: its card is not charged again next month."""

from datetime import timedelta

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import Fault, ScriptedStripe
from tests.checkout.helpers import place, reload_purchase
from tests.ledger.helpers import rows
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState, Received
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import PaymentProcessorUnavailableError, PaymentRejectedError

SUBSCRIPTIONS = "/v1/subscriptions"


@pytest.fixture
async def awaiting(checkout: Checkout, ledger: Ledger, database18: Database) -> Purchase:
    return await checkout.advance(await place(ledger, database18))


async def tell(checkout: Checkout, event: dict[str, object]) -> Received:
    return await checkout.receive(await checkout.payment_event(event, b"{}"))


async def refunded(checkout: Checkout, stripe: ScriptedStripe, purchase: Purchase) -> None:
    assert purchase.session_id is not None
    await tell(checkout, stripe.pay(purchase.session_id))
    assert await tell(checkout, stripe.refund(purchase.session_id)) is Received.APPLIED


def statuses(stripe: ScriptedStripe) -> list[str]:
    return [one["status"] for one in stripe.subscriptions.values()]


async def test_refunded_order_cancels_its_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase, database18: Database
) -> None:
    other = await checkout.advance(await place(ledger, database18))
    assert other.session_id is not None
    await tell(checkout, stripe.pay(other.session_id))
    await refunded(checkout, stripe, awaiting)
    (found,) = await ledger.purchases_to_check(300, 10)
    assert (found.key, found.state) == (awaiting.key, PurchaseState.REFUNDED)
    assert statuses(stripe) == ["active", "active"]
    await checkout.look_up(found)
    assert statuses(stripe) == ["active", "canceled"]
    assert await ledger.purchases_to_check(-1, 10) == []
    assert await reload_purchase(ledger, awaiting) == found


async def test_refund_before_its_payment_event_cancels_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    """The ledger was never told of a subscription: the customer at Stripe leads to it."""
    assert awaiting.session_id is not None
    stripe.pay(awaiting.session_id)
    await tell(checkout, stripe.refund(awaiting.session_id))
    (found,) = await ledger.purchases_to_check(300, 10)
    await checkout.look_up(found)
    assert statuses(stripe) == ["canceled"]


async def test_failed_payment_cancels_the_subscription(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    assert awaiting.session_id is not None
    stripe.pay(awaiting.session_id, later=True)
    await tell(checkout, stripe.payment_fails(awaiting.session_id))
    (found,) = await ledger.purchases_to_check(300, 10)
    await checkout.look_up(found)
    assert statuses(stripe) == ["canceled"]
    assert await ledger.purchases_to_check(-1, 10) == []


async def test_expired_checkout_needs_no_cancellation(
    checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    assert awaiting.session_id is not None
    await tell(checkout, stripe.expire(awaiting.session_id))
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
    """The word of its end came from a look of before: the ledger forgets nothing for it."""
    assert awaiting.session_id is not None
    stripe.pay(awaiting.session_id, later=True)
    await tell(checkout, stripe.payment_fails(awaiting.session_id))
    assert await tell(checkout, stripe.payment_succeeds(awaiting.session_id)) is Received.APPLIED
    await ledger.record_ended(awaiting.key)
    assert await rows(database18, "SELECT look_at - settled_at FROM vouchers.purchase") == [(timedelta(days=1),)]

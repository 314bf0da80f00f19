"""Events of another mode or of a connected account at Stripe are stored, and change nothing, whatever ids they have."""

from typing import Any

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from tests.ledger.helpers import rows
from tests.payments.helpers import open_checkout, receive_event, reload_purchase, session_of, settings
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState, Received
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.payments.stripe_events import foreign_event


@pytest.mark.parametrize("change", [{"livemode": True}, {"account": "acct_1"}, {"livemode": True, "account": "acct_1"}])
async def test_payment_of_another_mode_or_account_does_not_complete_an_order(
    change: dict[str, Any],
    checkout: Checkout,
    ledger: Ledger,
    stripe: ScriptedStripe,
    awaiting: Purchase,
    database18: Database,
) -> None:
    """Though its session and its metadata name the order, as a copy of the objects in the other mode would."""
    paid = stripe.pay(session_of(awaiting))
    foreign = paid | {"id": "evt_foreign"} | change
    assert await receive_event(checkout, foreign) is Received.FOREIGN
    assert await receive_event(checkout, foreign) is Received.DUPLICATE
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.AWAITING_PAYMENT
    kept = "SELECT type, outcome, session_id, order_id FROM vouchers.webhook_event"
    assert await rows(database18, kept) == [("checkout.session.completed", "foreign", None, None)]
    assert await receive_event(checkout, paid) is Received.APPLIED


async def test_refund_of_another_account_asks_stripe_nothing(
    checkout: Checkout, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    """The key could not read its payment, and Stripe would send the event for three days."""
    stripe.pay(session_of(awaiting))
    before = len(stripe.requests)
    event = {"id": "evt_1", "type": "charge.refunded", "livemode": False, "account": "acct_1"}
    charge = {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 5}
    assert await receive_event(checkout, event | {"data": {"object": charge}}) is Received.FOREIGN
    assert len(stripe.requests) == before


async def test_test_payment_is_foreign_to_a_live_key(
    ledger: Ledger, stripe: ScriptedStripe, awaiting: Purchase
) -> None:
    paid = stripe.pay(session_of(awaiting))
    async with open_checkout(ledger, settings(stripe.url, stripe_api_key="sk_live_voucher")) as live:
        assert await receive_event(live, paid) is Received.FOREIGN
    assert (await reload_purchase(ledger, awaiting)).state is PurchaseState.AWAITING_PAYMENT


@pytest.mark.parametrize(
    ("key", "live"),
    [
        ("sk_live_1", True),
        ("rk_live_1", True),
        ("sk_test_1", False),
        ("rk_test_1", False),
        ("", None),
        ("mock", None),
        ("ephemeral_live_", None),
    ],
)
def test_key_says_its_mode(key: str, live: bool | None) -> None:
    assert settings(stripe_api_key=key).stripe_live() is live


@pytest.mark.parametrize("live", [True, False, None])
@pytest.mark.parametrize("mode", [True, False, None, "true", 1])
def test_event_is_foreign_only_if_it_and_the_key_say_so(mode: object, live: bool | None) -> None:
    """An event without a mode, or a key without one, is judged by its ids."""
    event = {"id": "evt_1", "type": "invoice.paid", "livemode": mode, "account": None}
    foreign = foreign_event(event, b"", live=live)
    assert (foreign is not None) is (mode in (True, False) and isinstance(mode, bool) and live is (not mode))

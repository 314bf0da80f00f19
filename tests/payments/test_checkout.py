"""From a placed order to its checkout, with the real ledger and a scripted Stripe."""

from dataclasses import replace

from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from tests.ledger.helpers import issue
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from tests.payments.helpers import COUPONS, CUSTOMERS, LINES, SESSIONS, open_checkout, place, reload_purchase, settings
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PurchaseState, Received
from voucher_operator.payments.purchase_saga import Checkout


async def test_card_pays_exactly_what_credit_does_not(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await place(ledger, database18)
    advanced = await checkout.advance(purchase)
    session = stripe.only_session()
    assert advanced == await reload_purchase(ledger, purchase)
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert (advanced.session_id, advanced.checkout_url) == (session["id"], session["url"])
    assert advanced.session_expires_at is not None
    assert (session["amount_subtotal"], session["amount_total"]) == (19_000, 9_000)
    assert [one["email"] for one in stripe.customers.values()] == [purchase.email]
    received = await ledger.receive(await checkout.payment_event(stripe.pay(session["id"]), b"{}"))
    assert received is Received.APPLIED
    assert (await reload_purchase(ledger, purchase)).state is PurchaseState.COMPLETED
    assert stripe.charged == purchase.total_minor - 10_000


async def test_order_partly_paid_by_a_code_charges_the_rest(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    await issue(database18, "CODE", 10)
    purchase = await checkout.advance(
        await place_purchase(ledger, purchase_request(50_000, "CODE", lines=(replace(LINES[0], price_minor=50_000),)))
    )
    assert (purchase.state, purchase.granted_minor) == (PurchaseState.AWAITING_PAYMENT, 10_000)
    assert stripe.only_session()["amount_total"] == 40_000


async def test_order_without_credit_has_no_coupon(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await checkout.advance(await place(ledger, database18, credit_minor=0))
    assert purchase.state is PurchaseState.AWAITING_PAYMENT
    assert stripe.coupons == {}
    assert stripe.only_session()["amount_total"] == 19_000


async def test_stripe_price_id_of_the_catalog_is_used(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    stripe.prices["price_l"] = 16_000
    lines = (replace(LINES[0], stripe_price_id="price_l"), *LINES[1:])
    placed = await place(ledger, database18, lines=lines)
    assert (await checkout.advance(placed)).state is PurchaseState.AWAITING_PAYMENT
    assert stripe.only_session()["amount_total"] == 9_000


async def test_repeated_advance_creates_nothing_twice(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """A replica without any state repeats every step."""
    purchase = await place(ledger, database18)
    first = await checkout.advance(purchase)
    async with open_checkout(ledger, settings(stripe.url)) as other:
        assert await other.advance(purchase) == first
    assert await checkout.advance(first) == first
    assert (len(stripe.customers), len(stripe.coupons), len(stripe.sessions)) == (1, 1, 1)
    assert [stripe.count(f"POST {path}") for path in (CUSTOMERS, COUPONS, SESSIONS)] == [2, 2, 2]


async def test_currency_rules_follow_the_settings(checkout: Checkout, ledger: Ledger, stripe: ScriptedStripe) -> None:
    omr = await checkout.rules()
    assert (omr.currency, omr.step_minor, omr.minimum_minor) == ("OMR", 10, 260)
    async with open_checkout(ledger, settings(stripe.url, stripe_minimum_minor=1_000)) as other:
        assert (await other.rules()).minimum_minor == 1_000


async def test_missing_settings_are_named(ledger: Ledger) -> None:
    async with open_checkout(ledger, settings(stripe_api_key="", sovereign="")) as unconfigured:
        assert unconfigured.fault == (
            "Cards cannot be charged: set VOUCHER_OPERATOR_STRIPE_API_KEY_FILE and VOUCHER_OPERATOR_SOVEREIGN."
        )
    async with open_checkout(ledger, settings()) as configured:
        assert configured.fault is None

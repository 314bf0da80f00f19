"""Helpers to place purchases that need a checkout, and its settings. Fixtures are in `conftest`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import KEY, Fault, Pause, ScriptedStripe
from tests.ledger.helpers import redeem_request, rows
from tests.ledger.purchase_helpers import add_credit, place_purchase, purchase_request
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Line, Purchase, Received
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import PaymentProcessorUnavailableError
from voucher_operator.settings import Settings

SOVEREIGN = "omantel.example.com"
SECRET = "whsec_test"
CUSTOMERS, COUPONS, SESSIONS = "/v1/customers", "/v1/coupons", "/v1/checkout/sessions"
INVOICE_PAYMENTS = "/v1/invoice_payments"
LINES = (
    Line("plan", "l", "large", "Large", 16_000),
    Line("addon", "backup", "daily-backup", "Daily backup", 3_000),
    Line("addon", "waf", "waf", "Firewall", 0),
)


def settings(base: str = "http://127.0.0.1:9", **changes: Any) -> Settings:
    """Return settings of a Sovereign whose customers can pay by card."""
    values: dict[str, Any] = {
        "sovereign": SOVEREIGN,
        "stripe_api_key": KEY,
        "stripe_api_base": base,
        "stripe_webhook_secret": SECRET,
        "stripe_timeout": 5.0,
        "checkout_success_url": "https://console.example.com/paid?session={CHECKOUT_SESSION_ID}",
        "checkout_cancel_url": "https://console.example.com/cart",
    }
    return Settings(**{**values, **changes})


@asynccontextmanager
async def open_checkout(ledger: Ledger, given: Settings) -> AsyncIterator[Checkout]:
    """Open a checkout, as one process has it."""
    checkout = Checkout(ledger, given)
    try:
        yield checkout
    finally:
        await checkout.close()


async def place(ledger: Ledger, database: Database, credit_minor: int = 10_000, **changes: Any) -> Purchase:
    """Buy for 19.000 with so much credit on the account: PENDING, and the rest is due."""
    request = redeem_request("")
    if credit_minor:
        await add_credit(database, request.user_id, credit_minor)
    return await place_purchase(ledger, purchase_request(19_000, redeem=request, **{"lines": LINES, **changes}))


async def lose_session_answer(checkout: Checkout, stripe: ScriptedStripe, purchase: Purchase) -> None:
    """Have Stripe make the session of a purchase, and lose its answer."""
    stripe.fail(SESSIONS, Fault.CUT_AFTER)
    with pytest.raises(PaymentProcessorUnavailableError):
        await checkout.advance(purchase)


def session_of(purchase: Purchase) -> str:
    """Return the id of a purchase's session; it has one."""
    assert purchase.session_id is not None
    return purchase.session_id


async def receive_event(checkout: Checkout, event: dict[str, Any]) -> Received:
    """Receive a webhook event."""
    return await checkout.receive(await checkout.payment_event(event, b"{}"))


async def wait_reached(pause: Pause) -> None:
    """Wait until the request that is to be held is there."""
    assert await asyncio.to_thread(pause.reached.wait, 20)


async def reload_purchase(ledger: Ledger, purchase: Purchase) -> Purchase:
    """Read a purchase again."""
    found = await ledger.purchase_of(purchase.key)
    assert found is not None
    return found


async def make_overdue(database: Database, purchase: Purchase) -> None:
    """Move the deadline of a purchase into the past."""
    await rows(database, "UPDATE vouchers.purchase SET deadline_at = clock_timestamp() WHERE key = %s", purchase.key)

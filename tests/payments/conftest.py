"""One stripe-mock for the session; a scripted Stripe, a ledger and a checkout for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from testbed.stripe import StripeMock
from tests.payments.helpers import SOVEREIGN, open_checkout, place, settings
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.payments.purchase_saga import Checkout


@pytest.fixture(scope="session")
def stripe_mock() -> Iterator[StripeMock]:
    with StripeMock() as server:
        yield server


@pytest.fixture
def stripe() -> Iterator[ScriptedStripe]:
    """After the test, no request was invalid."""
    with ScriptedStripe() as server:
        yield server
    assert server.invalid_requests == []


@pytest.fixture
async def ledger(database18: Database) -> AsyncIterator[Ledger]:
    """After the test every invariant must hold."""
    opened = Ledger(lambda: database18.runtime_url, sovereign=SOVEREIGN)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()
    assert await verify(database18.admin_url) == []


@pytest.fixture
async def checkout(ledger: Ledger, stripe: ScriptedStripe) -> AsyncIterator[Checkout]:
    async with open_checkout(ledger, settings(stripe.url)) as made:
        yield made


@pytest.fixture
async def awaiting(checkout: Checkout, ledger: Ledger, database18: Database) -> Purchase:
    """A purchase whose customer has the checkout URL."""
    return await checkout.advance(await place(ledger, database18))

"""The ledger behind the webhook, as the Sovereign `ours`."""

from collections.abc import AsyncIterator

import pytest

from testbed.postgres import Database
from tests.web.helpers import WebhookClient, webhook
from voucher_operator.ledger.api import Ledger


@pytest.fixture
async def ledger(database18: Database) -> AsyncIterator[Ledger]:
    opened = Ledger(lambda: database18.runtime_url, sovereign="ours.example")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def stripe_calls(ledger: Ledger) -> AsyncIterator[WebhookClient]:
    """Calls that end in the ledger."""
    async with webhook(ledger.receive) as caller:
        yield caller

"""Fixtures of the ledger's tests: a Ledger that is logged in with the operator's rights alone."""

from collections.abc import AsyncIterator

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import open_ledger
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    """A ledger on each version; after the test every invariant must hold. A second spelling is the test's own doing."""
    async with open_ledger(database.runtime_url) as opened:
        yield opened
    assert [v for v in await verify(database.admin_url) if v.invariant != "spelling"] == []


@pytest.fixture
async def ledger18(database18: Database) -> AsyncIterator[Ledger]:
    """The same on the newest version alone, for what is above the statements that every version has to run."""
    async with open_ledger(database18.runtime_url) as opened:
        yield opened
    assert await verify(database18.admin_url) == []

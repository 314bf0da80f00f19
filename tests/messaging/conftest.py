"""One nats-server for the session; streams and subjects belong to one test. A test that stops a server has its own."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from testbed.nats import NatsServer
from testbed.postgres import Database
from tests.ledger.helpers import open_ledger
from tests.messaging.helpers import Streams
from voucher_operator.ledger.api import Ledger


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture
def streams(nats: NatsServer) -> Streams:
    """A stream and a subject prefix of the test's own, on the shared server."""
    return Streams(nats, secrets.token_hex(5))


@pytest.fixture
async def ledger(database18: Database) -> AsyncIterator[Ledger]:
    async with open_ledger(database18.runtime_url) as opened:
        yield opened

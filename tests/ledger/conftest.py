"""Fixtures of the ledger's tests: a Ledger with the rights of the operator alone, and a server of one module alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.postgres import RUNTIME, Database, PostgresServer
from tests.ledger.helpers import open_ledger
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.schema.migrate import migrate


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


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that a module may stop or make read-only. One version: what the pool sees of it is libpq's."""
    with PostgresServer(18) as server:
        yield server


@pytest.fixture
def own_database(own_server: PostgresServer) -> Iterator[Database]:
    """A migrated database of that server."""
    made = own_server.database("ledger")
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, migrate(made.owner_url, currency="OMR", runtime_role=RUNTIME)).result()
    yield made
    own_server.drop(made)

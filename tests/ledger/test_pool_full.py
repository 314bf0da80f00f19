"""A full pool is reported as what it is, and is not taken for an outage: what decides over health has a connection."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import holding, open_ledger, terms
from tests.ledger.network import slow_network
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from voucher_operator.ledger import pool
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import LedgerBusyError, PoolFullError, is_outage
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.resources.reasons import Reason

COMPENSATIONS = 64
FULL = "connections to PostgreSQL are in use"


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    caplog.set_level(logging.INFO)
    return caplog.records


@asynccontextmanager
async def full_pool(ledger: Ledger) -> AsyncIterator[None]:
    """Use every connection of a ledger but the reserved one."""
    end, in_use = asyncio.Event(), asyncio.Semaphore(0)

    async def hold(_: Connection) -> None:
        in_use.release()
        await end.wait()

    holders = [asyncio.create_task(ledger._pool.run(hold)) for _ in range(ledger._pool.size)]
    for _ in holders:
        await in_use.acquire()
    yield
    end.set()
    await asyncio.gather(*holders)


async def test_full_pool_has_its_own_message_and_is_no_outage(
    ledger18: Ledger, monkeypatch: pytest.MonkeyPatch, warnings: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(pool, "TURN_SECONDS", 0.2)
    async with full_pool(ledger18):
        with pytest.raises(PoolFullError, match=FULL) as error:
            await ledger18.owners()
        assert not is_outage(error.value)
        assert (await ledger18.check()).currency == "OMR"
        assert await ledger18.counters() == []
        await ledger18.end_stale_sessions()
    assert await ledger18.owners() == []
    assert [record.getMessage() for record in warnings if record.levelno >= logging.WARNING] == []


async def test_health_checks_share_the_reserved_connection_in_turn(ledger18: Ledger) -> None:
    async with full_pool(ledger18):
        answers = await asyncio.gather(*(ledger18.check() for _ in range(20)), ledger18.counters())
    assert len(answers) == 21


async def test_call_waits_its_turn_for_a_connection(ledger18: Ledger) -> None:
    """For longer than a call of before waited."""
    async with full_pool(ledger18):
        waiting = asyncio.create_task(ledger18.owners())
        await asyncio.wait([waiting], timeout=pool.ACQUIRE_SECONDS + 0.5)
        assert not waiting.done()
    assert await waiting == []


async def test_64_compensations_of_one_locked_code_are_no_outage(
    ledger18: Ledger, database18: Database, warnings: list[logging.LogRecord]
) -> None:
    """Each waits a second for the row; those that find no connection say so, and health is known all the time."""
    await ledger18.put(terms())
    requests = [purchase_request(50_000, "CODE", f"user-{n}") for n in range(COMPENSATIONS)]
    placed = await asyncio.gather(*(place_purchase(ledger18, request) for request in requests))
    async with holding(database18, "SELECT 1 FROM promo_codes FOR UPDATE"):
        taking_back = [asyncio.create_task(ledger18.compensate(one.key, Reason.PAYMENT_REJECTED)) for one in placed]
        while not all(task.done() for task in taking_back):
            await ledger18.check()
            (counters,) = await ledger18.counters()
            assert counters.times_redeemed == COMPENSATIONS
            await asyncio.wait(taking_back, timeout=0.2)
    errors = [task.exception() for task in taking_back]
    assert {type(error) for error in errors} == {LedgerBusyError, PoolFullError}
    assert [record.getMessage() for record in warnings if record.levelno >= logging.WARNING] == []
    await asyncio.gather(*(ledger18.compensate(one.key, Reason.PAYMENT_REJECTED) for one in placed))


async def test_connection_that_takes_two_seconds_is_no_outage(
    database18: Database, warnings: list[logging.LogRecord]
) -> None:
    """As at the start of an operator on a machine under load."""
    async with slow_network(database18, 2.0) as slowed, open_ledger(slowed(database18.runtime_url)) as ledger:
        assert (await ledger.info()).currency == "OMR"
    assert [record.getMessage() for record in warnings if record.levelno >= logging.WARNING] == []


async def test_server_that_accepts_no_connection_in_time_is_an_outage(
    database18: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with slow_network(database18, 8.0) as slowed, open_ledger(slowed(database18.runtime_url)) as ledger:
        with pytest.raises(LedgerUnavailableError, match=r"cannot be reached|did not answer in time") as error:
            await ledger.check()
        assert is_outage(error.value)
    assert "the ledger cannot be used" in caplog.text

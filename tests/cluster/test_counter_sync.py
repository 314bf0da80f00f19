"""The counter sync says whether the ledger is available: a full pool is not an outage for all resources."""

import asyncio

import pytest

from tests.cluster.controller_harness import ControllerHarness
from tests.ledger.test_pool_full import full_pool
from voucher_operator import telemetry
from voucher_operator.ledger.errors import LedgerBusyError, PoolFullError
from voucher_operator.resources.errors import LedgerUnavailableError


async def test_ledger_stays_available_while_the_pool_is_full(harness: ControllerHarness) -> None:
    sync = harness.parts.counter_sync
    async with full_pool(harness.ledger):
        await sync.sync_all()
        assert sync.health.available
    assert telemetry.LEDGER_UP._value.get() == 1


@pytest.mark.parametrize("error", [PoolFullError("full"), LedgerBusyError("a row is held")])
async def test_busy_connections_or_rows_do_not_make_the_ledger_unavailable(
    harness: ControllerHarness, error: LedgerUnavailableError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    sync = harness.parts.counter_sync
    monkeypatch.setattr(harness.ledger, "counters", fail)
    with pytest.raises(type(error)):
        await sync.sync_all()
    assert sync.health.available

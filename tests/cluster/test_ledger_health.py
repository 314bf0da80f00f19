"""The counter sync says whether the ledger is available: a full pool is not an outage for all resources."""

import asyncio

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason
from tests.cluster.test_status_events import issue, voucher
from tests.ledger.helpers import until
from tests.ledger.test_pool_full import full_pool
from voucher_operator import telemetry
from voucher_operator.ledger.errors import LedgerBusyError, PoolFullError
from voucher_operator.ledger.types import VoucherTerms
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
    async def fail(*_: object) -> None:
        await asyncio.sleep(0)
        raise error

    sync = harness.parts.counter_sync
    monkeypatch.setattr(harness.ledger, "moved", fail)
    with pytest.raises(type(error)):
        await sync.sync_all()
    assert sync.health.available


@pytest.mark.parametrize("error", [PoolFullError("full"), LedgerBusyError("a row is held")])
async def test_issued_voucher_keeps_its_status_while_the_ledger_is_busy(
    harness: ControllerHarness, error: LedgerUnavailableError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: VoucherTerms) -> None:
        await asyncio.sleep(0)
        raise error

    voucher(harness, "muscat", "MUSCAT-1")
    before = await issue(harness, "muscat")
    assert reason(before) == ("True", "Issued")
    monkeypatch.setattr(harness.ledger, "put", fail)
    with pytest.raises(type(error)):
        await issue(harness, "muscat")
    (body,) = [one for path, one in harness.server.objects.items() if path.endswith("/vouchers/muscat")]
    assert body["status"] == before


async def test_unavailable_ledger_is_checked_again_before_the_next_counter_sync(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All resources wait for it."""
    sync = harness.parts.counter_sync
    monkeypatch.setattr(sync, "settings", sync.settings.model_copy(update={"counter_sync_interval": 600.0}))
    running = asyncio.create_task(sync.run())
    sync.health.set_unavailable(LedgerUnavailableError("away"))
    await until(lambda: sync.health.available)
    sync.health.set_unavailable(LedgerUnavailableError("away again"))
    await until(lambda: sync.health.available)
    running.cancel()
    await asyncio.wait((running,))

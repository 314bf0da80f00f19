"""A replica whose Lease has passed writes nothing more, neither into the ledger nor to the API server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from tests.cluster.controller_harness import ControllerHarness, spec
from tests.ledger.helpers import redeem_request, terms
from tests.ledger.purchase_helpers import purchase_request, row_counts
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import VoucherOwner
from voucher_operator.resources.errors import LeaseExpiredError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

KEY: Final = Key("billing/one")
NAMESPACES: Final = ("billing",)
WRITES: Final[dict[str, Callable[[Ledger], Awaitable[Any]]]] = {
    "redeem": lambda ledger: ledger.redeem(redeem_request()),
    "purchase": lambda ledger: ledger.purchase(purchase_request()),
    "put": lambda ledger: ledger.put(terms()),
    "revoke": lambda ledger: ledger.revoke(VoucherOwner("voucher-1", "billing", "first")),
    "compensate": lambda ledger: ledger.compensate(KEY, Reason.ABANDONED),
    "record_customer": lambda ledger: ledger.record_customer(KEY, "cus_1"),
    "record_delivered": lambda ledger: ledger.record_delivered({}),
    "record_ended": lambda ledger: ledger.record_ended(KEY),
    "record_undo_reported": lambda ledger: ledger.record_undo_reported([KEY]),
    "outbox_published": lambda ledger: ledger.outbox_published([]),
    "undelivered_purchases": lambda ledger: ledger.undelivered_purchases(NAMESPACES, 0, 1),
    "undone_elsewhere": lambda ledger: ledger.undone_elsewhere(NAMESPACES, 0, 1),
    "purchases_to_check": lambda ledger: ledger.purchases_to_check(0, 1),
    "purge": lambda ledger: ledger.purge(),
    "end_stale_sessions": lambda ledger: ledger.end_stale_sessions(),
}


def expired() -> None:
    raise LeaseExpiredError


def expire(harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Lease pass for all that the harness writes."""
    monkeypatch.setattr(harness.ledger, "_fence", expired)
    monkeypatch.setattr(harness.process.kube, "_fence", expired)


async def test_ledger_writes_nothing_once_the_lease_has_passed(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await row_counts(harness.database)
    expire(harness, monkeypatch)
    for write in WRITES.values():
        with pytest.raises(LeaseExpiredError):
            await write(harness.ledger)
    assert (await harness.ledger.check()).currency == "OMR"
    assert await harness.ledger.counters() == []
    assert await row_counts(harness.database) == before


async def test_each_request_of_a_batch_is_refused_with_an_error_of_its_own(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire(harness, monkeypatch)
    requests = [harness.ledger.redeem(redeem_request()) for _ in range(50)]
    errors = await asyncio.gather(*requests, return_exceptions=True)
    assert {type(error) for error in errors} == {LeaseExpiredError}
    assert len({id(error) for error in errors}) == 50


async def test_order_is_neither_placed_nor_reported_once_the_lease_has_passed(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = await harness.issue()
    body = harness.apply("late", spec(code))
    before = await row_counts(harness.database)
    with monkeypatch.context() as stopped:
        expire(harness, stopped)
        with pytest.raises(LeaseExpiredError):
            await harness.reconcile("late")
        assert await row_counts(harness.database) == before
        assert [call for call in harness.server.calls if not call.startswith("GET ")] == []
        assert body["status"] == {}
    assert (await harness.reconcile("late"))["state"] == "Completed"


async def test_status_is_not_written_when_the_lease_passes_after_the_commit(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next leader reads the result by its key, and writes it."""
    harness.apply("late", spec(await harness.issue()))
    with monkeypatch.context() as stopped:
        stopped.setattr(harness.process.kube, "_fence", expired)
        with pytest.raises(LeaseExpiredError):
            await harness.reconcile("late")
        assert [call for call in harness.server.calls if call.startswith("PATCH ")] == []
    assert (await harness.purchase("late")).order_id
    assert (await harness.reconcile("late"))["state"] == "Completed"

"""An event is posted once with the status that says its reason first, whatever was lost between ledger and API server.

What the ledger answers does not tell whether people know: it repeats an answer although no status was written with it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, spec
from tests.cluster.resources import Object, unique
from tests.cluster.stripe_fixture import order
from tests.ledger.go_service import GoService
from tests.ledger.helpers import terms
from voucher_operator.controllers.voucher.controller import FINALIZER
from voucher_operator.kube.work_queue import Result
from voucher_operator.resources.errors import ApiUnavailableError, LedgerUnavailableError

_PATH: Final = "/apis/billing.openova.io/v1alpha1/namespaces/billing"
_PATCH: Final = f"PATCH {_PATH}"


def customer() -> Object:
    return {"customer": {"userID": unique("user"), "tenantID": "kestrel", "email": "ahmed@example.com"}}


async def redeem(harness: ControllerHarness, name: str = "kestrel") -> Object:
    """Have the worker reconcile a Redemption without an order; return its status then."""
    while await harness.parts.redemptions.reconcile(f"billing/{name}") is Result.REQUEUE:
        pass
    return harness.watch(name)


async def issue(harness: ControllerHarness, name: str) -> Object:
    """Have the worker reconcile a Voucher; return its status then."""
    while await harness.parts.vouchers.reconcile(f"billing/{name}") is Result.REQUEUE:
        pass
    body = harness.server.objects[f"{_PATH}/vouchers/{name}"]
    harness.parts.feed.voucher_cache.put(body)
    status: Object = body["status"]
    return status


def voucher(harness: ControllerHarness, name: str, code: str) -> Object:
    """Create a Voucher, and have the watch report it."""
    metadata = {"name": name, "namespace": "billing", "uid": unique("uid"), "generation": 1, "finalizers": [FINALIZER]}
    times = {"resourceVersion": unique("version"), "creationTimestamp": "2026-12-01T00:00:00Z"}
    credit = {"amount": 10, "currency": "OMR"}
    body = {"metadata": metadata | times, "spec": {"code": code, "credit": credit}, "status": {}}
    harness.server.objects[f"{_PATH}/vouchers/{name}"] = body
    harness.parts.feed.voucher_cache.put(body)
    return body


async def fail_once(harness: ControllerHarness, work: Callable[[], Awaitable[object]], *, written: bool) -> None:
    """Have a PATCH of a status fail, `written` or not."""
    if written:
        harness.server.unanswered = _PATCH
    else:
        harness.server.faults[_PATCH] = (503, "not now")
    with pytest.raises(ApiUnavailableError):
        await work()
    harness.server.unanswered = ""
    harness.server.faults.clear()


@pytest.mark.parametrize("written", [False, True])
async def test_refusal_has_one_event_when_its_first_patch_fails(harness: ControllerHarness, written: bool) -> None:
    harness.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(harness, lambda: redeem(harness), written=written)
    assert await harness.events("kestrel") == []
    assert reason(await redeem(harness)) == ("False", "VoucherNotFound")
    await redeem(harness)
    assert await harness.events("kestrel") == ["VoucherNotFound"]


async def test_event_is_posted_when_the_watch_reports_the_unanswered_patch_first(harness: ControllerHarness) -> None:
    harness.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(harness, lambda: redeem(harness), written=True)
    assert harness.watch("kestrel")["finished"]
    harness.server.faults["GET"] = (503, "not now")
    with pytest.raises(ApiUnavailableError):
        await redeem(harness)
    harness.server.faults.clear()
    await redeem(harness)
    await redeem(harness)
    assert await harness.events("kestrel") == ["VoucherNotFound"]


async def test_unanswered_patch_of_a_deleted_redemption_has_no_event(harness: ControllerHarness) -> None:
    harness.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(harness, lambda: redeem(harness), written=True)
    harness.remove("kestrel")
    assert await harness.parts.redemptions.reconcile("billing/kestrel") is Result.DONE
    assert await harness.events("kestrel") == []


@pytest.mark.parametrize("written", [False, True])
async def test_refused_order_has_one_event_when_its_first_patch_fails(
    harness: ControllerHarness, written: bool
) -> None:
    harness.apply("kestrel", spec("NOBODYS"))
    await fail_once(harness, lambda: harness.reconcile("kestrel"), written=written)
    assert reason(await harness.reconcile("kestrel")) == ("False", "VoucherNotFound")
    assert await harness.events("kestrel") == ["VoucherNotFound"]


async def test_refused_order_has_no_second_event_when_it_is_refused_again(harness: ControllerHarness) -> None:
    """Its status said so, and was reduced to that by another version: `finished` is gone."""
    harness.apply("kestrel", spec(await harness.issue(), order=order("nothing-of-ours")))
    await harness.reconcile("kestrel")
    del harness.server.objects[f"{_PATH}/redemptions/kestrel"]["status"]["finished"]
    harness.watch("kestrel")
    assert reason(await harness.reconcile("kestrel")) == ("False", "InvalidOrder")
    assert await harness.events("kestrel") == ["InvalidOrder"]


async def test_undo_before_the_first_status_has_an_event(harness: ControllerHarness) -> None:
    code = await harness.issue()
    harness.apply("kestrel", {"code": code, **customer()})
    await fail_once(harness, lambda: redeem(harness), written=False)
    await undo_by_go(harness, code)
    assert reason(await redeem(harness)) == ("False", "RolledBack")
    assert await harness.events("kestrel") == ["RolledBack"]


async def test_paid_order_has_an_event_when_its_code_is_undone(harness: ControllerHarness) -> None:
    code = await harness.issue()
    harness.apply("kestrel", spec(code))
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"
    await undo_by_go(harness, code)
    for _ in range(2):
        await harness.parts.undo_reporter.report()
        status = await harness.reconcile("kestrel")
    assert (status["state"], reason(status, "Redeemed")) == ("Completed", ("False", "RolledBack"))
    assert await harness.events("kestrel") == ["Completed", "RolledBack"]
    await harness.sql("INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, 9, 'gift' FROM customers")


async def undo_by_go(harness: ControllerHarness, code: str) -> None:
    """Take back the one redemption of a code, as the Go service does."""
    ((customer_id,),) = await harness.sql("SELECT customer_id FROM promo_redemptions WHERE code = %s", code)
    async with GoService.connect(harness.database.owner_url) as go:
        assert await go.undo(customer_id, code)


@pytest.mark.parametrize("written", [False, True])
async def test_voucher_has_one_issued_event_when_its_first_patch_fails(
    harness: ControllerHarness, written: bool
) -> None:
    voucher(harness, "muscat", unique("MUSCAT").upper())
    await fail_once(harness, lambda: issue(harness, "muscat"), written=written)
    assert reason(await issue(harness, "muscat")) == ("True", "Issued")
    await issue(harness, "muscat")
    assert await harness.events("muscat") == ["Issued"]


async def test_voucher_has_one_issued_event_when_the_ledger_has_it_before_it_is_asked(
    harness: ControllerHarness,
) -> None:
    """The commit was made and its answer lost: the repeated call has nothing to write."""
    code = unique("MUSCAT").upper()
    body = voucher(harness, "muscat", code)
    await harness.ledger.put(terms(code, uid=body["metadata"]["uid"], name="muscat"))
    assert reason(await issue(harness, "muscat")) == ("True", "Issued")
    assert await harness.events("muscat") == ["Issued"]


async def test_outage_of_the_ledger_makes_no_second_issued_event(harness: ControllerHarness) -> None:
    voucher(harness, "muscat", unique("MUSCAT").upper())
    await issue(harness, "muscat")
    harness.parts.vouchers.health.set_unavailable(LedgerUnavailableError("PostgreSQL is away."))
    assert reason(await issue(harness, "muscat")) == ("False", "LedgerUnavailable")
    harness.parts.vouchers.health.set_available()
    assert reason(await issue(harness, "muscat")) == ("True", "Issued")
    assert await harness.events("muscat") == ["Issued"]


@pytest.mark.parametrize("written", [False, True])
async def test_voucher_has_one_conflict_event_when_its_first_patch_fails(
    harness: ControllerHarness, written: bool
) -> None:
    code = unique("MUSCAT").upper()
    voucher(harness, "muscat", code)
    await issue(harness, "muscat")
    voucher(harness, "sohar", code)
    await fail_once(harness, lambda: issue(harness, "sohar"), written=written)
    assert reason(await issue(harness, "sohar")) == ("False", "CodeConflict")
    assert await harness.events("sohar") == ["CodeConflict"]
    assert await harness.events("muscat") == ["Issued", "CodeContested"]


async def test_deleted_voucher_has_one_revoked_event_when_the_ledger_has_nothing_left_to_revoke(
    harness: ControllerHarness,
) -> None:
    """Another replica's call made the commit, and died before it posted the event."""
    body = voucher(harness, "muscat", unique("MUSCAT").upper())
    await issue(harness, "muscat")
    harness.elect_new_leader()
    await harness.sql("UPDATE vouchers.terms SET revoked_at = clock_timestamp()")
    for _ in range(2):
        await harness.parts.vouchers.revoke(body)
    assert await harness.events("muscat") == ["Issued", "Revoked"]


async def test_deleted_voucher_that_was_never_issued_has_no_revoked_event(harness: ControllerHarness) -> None:
    code = unique("MUSCAT").upper()
    voucher(harness, "muscat", code)
    await issue(harness, "muscat")
    body = voucher(harness, "sohar", code)
    await issue(harness, "sohar")
    await harness.parts.vouchers.revoke(body)
    assert await harness.events("sohar") == ["CodeConflict"]

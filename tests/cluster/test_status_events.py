"""An event is posted once with the status that says its reason first, whatever was lost between ledger and API server.

What the ledger answers does not tell whether people know: it repeats an answer although no status was written with it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from tests.cluster.desk import Desk, reason, spec
from tests.cluster.market import order
from tests.cluster.resources import Object, unique
from tests.ledger.drive import terms
from tests.ledger.go_service import GoService
from voucher_operator.controllers.voucher.controller import FINALIZER
from voucher_operator.kube.work_queue import Result
from voucher_operator.resources.errors import ApiUnavailableError, LedgerUnavailableError

_PATH: Final = "/apis/billing.openova.io/v1alpha1/namespaces/billing"
_PATCH: Final = f"PATCH {_PATH}"


def customer() -> Object:
    return {"customer": {"userID": unique("user"), "tenantID": "kestrel", "email": "ahmed@example.com"}}


async def redeem(desk: Desk, name: str = "kestrel") -> Object:
    """Have the worker reconcile a Redemption without an order; return its status then."""
    while await desk.parts.undone.redemptions.reconcile(f"billing/{name}") is Result.REQUEUE:
        pass
    return desk.watch(name)


async def issue(desk: Desk, name: str) -> Object:
    """Have the worker reconcile a Voucher; return its status then."""
    while await desk.parts.vouchers.reconcile(f"billing/{name}") is Result.REQUEUE:
        pass
    body = desk.server.objects[f"{_PATH}/vouchers/{name}"]
    desk.parts.feed.voucher_cache.put(body)
    status: Object = body["status"]
    return status


def voucher(desk: Desk, name: str, code: str) -> Object:
    """Create a Voucher, and have the watch report it."""
    metadata = {"name": name, "namespace": "billing", "uid": unique("uid"), "generation": 1, "finalizers": [FINALIZER]}
    times = {"resourceVersion": unique("version"), "creationTimestamp": "2026-12-01T00:00:00Z"}
    credit = {"amount": 10, "currency": "OMR"}
    body = {"metadata": metadata | times, "spec": {"code": code, "credit": credit}, "status": {}}
    desk.server.objects[f"{_PATH}/vouchers/{name}"] = body
    desk.parts.feed.voucher_cache.put(body)
    return body


async def fail_once(desk: Desk, work: Callable[[], Awaitable[object]], *, written: bool) -> None:
    """Have a PATCH of a status fail, `written` or not."""
    if written:
        desk.server.unanswered = _PATCH
    else:
        desk.server.faults[_PATCH] = (503, "not now")
    with pytest.raises(ApiUnavailableError):
        await work()
    desk.server.unanswered = ""
    desk.server.faults.clear()


@pytest.mark.parametrize("written", [False, True])
async def test_refusal_has_one_event_when_its_first_patch_fails(desk: Desk, written: bool) -> None:
    desk.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(desk, lambda: redeem(desk), written=written)
    assert await desk.events("kestrel") == []
    assert reason(await redeem(desk)) == ("False", "VoucherNotFound")
    await redeem(desk)
    assert await desk.events("kestrel") == ["VoucherNotFound"]


async def test_event_is_posted_when_the_watch_reports_the_unanswered_patch_first(desk: Desk) -> None:
    desk.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(desk, lambda: redeem(desk), written=True)
    assert desk.watch("kestrel")["finished"]
    desk.server.faults["GET"] = (503, "not now")
    with pytest.raises(ApiUnavailableError):
        await redeem(desk)
    desk.server.faults.clear()
    await redeem(desk)
    await redeem(desk)
    assert await desk.events("kestrel") == ["VoucherNotFound"]


async def test_unanswered_patch_of_a_deleted_redemption_has_no_event(desk: Desk) -> None:
    desk.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(desk, lambda: redeem(desk), written=True)
    desk.remove("kestrel")
    assert await desk.parts.undone.redemptions.reconcile("billing/kestrel") is Result.DONE
    assert await desk.events("kestrel") == []


@pytest.mark.parametrize("written", [False, True])
async def test_refused_order_has_one_event_when_its_first_patch_fails(desk: Desk, written: bool) -> None:
    desk.apply("kestrel", spec("NOBODYS"))
    await fail_once(desk, lambda: desk.reconcile("kestrel"), written=written)
    assert reason(await desk.reconcile("kestrel")) == ("False", "VoucherNotFound")
    assert await desk.events("kestrel") == ["VoucherNotFound"]


async def test_refused_order_has_no_second_event_when_it_is_refused_again(desk: Desk) -> None:
    """Its status said so, and was reduced to that by another version: `finished` is gone."""
    desk.apply("kestrel", spec(await desk.issue(), order=order("nothing-of-ours")))
    await desk.reconcile("kestrel")
    del desk.server.objects[f"{_PATH}/redemptions/kestrel"]["status"]["finished"]
    desk.watch("kestrel")
    assert reason(await desk.reconcile("kestrel")) == ("False", "InvalidOrder")
    assert await desk.events("kestrel") == ["InvalidOrder"]


async def test_undo_before_the_first_status_has_an_event(desk: Desk) -> None:
    code = await desk.issue()
    desk.apply("kestrel", {"code": code, **customer()})
    await fail_once(desk, lambda: redeem(desk), written=False)
    await undo_by_go(desk, code)
    assert reason(await redeem(desk)) == ("False", "RolledBack")
    assert await desk.events("kestrel") == ["RolledBack"]


async def test_paid_order_has_an_event_when_its_code_is_undone(desk: Desk) -> None:
    code = await desk.issue()
    desk.apply("kestrel", spec(code))
    assert (await desk.reconcile("kestrel"))["state"] == "Completed"
    await undo_by_go(desk, code)
    for _ in range(2):
        await desk.parts.undone.report()
        status = await desk.reconcile("kestrel")
    assert (status["state"], reason(status, "Redeemed")) == ("Completed", ("False", "RolledBack"))
    assert await desk.events("kestrel") == ["Completed", "RolledBack"]
    await desk.sql("INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, 9, 'gift' FROM customers")


async def undo_by_go(desk: Desk, code: str) -> None:
    """Take back the one redemption of a code, as the Go service does."""
    ((customer_id,),) = await desk.sql("SELECT customer_id FROM promo_redemptions WHERE code = %s", code)
    async with GoService.connect(desk.database.owner_url) as go:
        assert await go.undo(customer_id, code)


@pytest.mark.parametrize("written", [False, True])
async def test_voucher_has_one_issued_event_when_its_first_patch_fails(desk: Desk, written: bool) -> None:
    voucher(desk, "muscat", unique("MUSCAT").upper())
    await fail_once(desk, lambda: issue(desk, "muscat"), written=written)
    assert reason(await issue(desk, "muscat")) == ("True", "Issued")
    await issue(desk, "muscat")
    assert await desk.events("muscat") == ["Issued"]


async def test_voucher_has_one_issued_event_when_the_ledger_has_it_before_it_is_asked(desk: Desk) -> None:
    """The commit was made and its answer lost: the repeated call has nothing to write."""
    code = unique("MUSCAT").upper()
    body = voucher(desk, "muscat", code)
    await desk.ledger.put(terms(code, uid=body["metadata"]["uid"], name="muscat"))
    assert reason(await issue(desk, "muscat")) == ("True", "Issued")
    assert await desk.events("muscat") == ["Issued"]


async def test_outage_of_the_ledger_makes_no_second_issued_event(desk: Desk) -> None:
    voucher(desk, "muscat", unique("MUSCAT").upper())
    await issue(desk, "muscat")
    desk.parts.vouchers.outage.begin(LedgerUnavailableError("PostgreSQL is away."))
    assert reason(await issue(desk, "muscat")) == ("False", "LedgerUnavailable")
    desk.parts.vouchers.outage.end()
    assert reason(await issue(desk, "muscat")) == ("True", "Issued")
    assert await desk.events("muscat") == ["Issued"]


@pytest.mark.parametrize("written", [False, True])
async def test_voucher_has_one_conflict_event_when_its_first_patch_fails(desk: Desk, written: bool) -> None:
    code = unique("MUSCAT").upper()
    voucher(desk, "muscat", code)
    await issue(desk, "muscat")
    voucher(desk, "sohar", code)
    await fail_once(desk, lambda: issue(desk, "sohar"), written=written)
    assert reason(await issue(desk, "sohar")) == ("False", "CodeConflict")
    assert await desk.events("sohar") == ["CodeConflict"]
    assert await desk.events("muscat") == ["Issued", "CodeContested"]


async def test_deleted_voucher_has_one_revoked_event_when_the_ledger_has_nothing_left_to_revoke(desk: Desk) -> None:
    """Another replica's call made the commit, and died before it posted the event."""
    body = voucher(desk, "muscat", unique("MUSCAT").upper())
    await issue(desk, "muscat")
    desk.lead_anew()
    await desk.sql("UPDATE vouchers.terms SET revoked_at = clock_timestamp()")
    for _ in range(2):
        await desk.parts.vouchers.revoke(body)
    assert await desk.events("muscat") == ["Issued", "Revoked"]


async def test_deleted_voucher_that_was_never_issued_has_no_revoked_event(desk: Desk) -> None:
    code = unique("MUSCAT").upper()
    voucher(desk, "muscat", code)
    await issue(desk, "muscat")
    body = voucher(desk, "sohar", code)
    await issue(desk, "sohar")
    await desk.parts.vouchers.revoke(body)
    assert await desk.events("sohar") == ["CodeConflict"]

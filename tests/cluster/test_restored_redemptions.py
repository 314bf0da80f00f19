"""A finished Redemption whose status is not what the ledger says, because one of the two was restored, is corrected.

See also: test_redemption_idempotency.py for Redemptions without a status.
"""

from typing import Any

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, spec
from tests.cluster.resources import Object, unique
from voucher_operator.kube.work_queue import Result

Status = dict[str, Any]
REDEEMED: Status = {"finished": True, "state": "Redeemed", "credit": "10.000 OMR"}
REJECTED: Status = {"finished": True, "state": "Rejected"}
COMPLETED: Status = {"finished": True, "state": "Completed", "orderID": "3c9e"}


def without_order(code: str, user: str | None = None) -> Object:
    return {name: value for name, value in spec(code, user).items() if name != "order"}


async def decide(harness: ControllerHarness, name: str) -> Object:
    """Have the worker decide a Redemption without an order; returns its status then."""
    while await harness.parts.redemptions.reconcile(f"billing/{name}") is Result.REQUEUE:
        pass
    return harness.watch(name)


async def check(harness: ControllerHarness, name: str) -> Object:
    """Compare all statuses with the ledger, and reconcile what is queued; returns the status then."""
    await harness.parts.status_check.check("billing")
    if harness.parts.feed.order_queue.knows(f"billing/{name}"):
        return await harness.reconcile(name)
    if harness.parts.feed.redemption_queue.knows(f"billing/{name}"):
        return await decide(harness, name)
    return harness.watch(name)


def restore(harness: ControllerHarness, name: str, restored: Object, status: Status) -> None:
    """Have a new object with an old status, which is not watched."""
    harness.apply(name, restored, dict(status))
    harness.parts.feed.redemption_cache.drop(f"billing/{name}")


async def test_restored_rejection_of_a_granted_request_becomes_redeemed(harness: ControllerHarness) -> None:
    asked = without_order(await harness.issue())
    harness.apply("kestrel", asked)
    granted = await decide(harness, "kestrel")
    restore(harness, "kestrel", asked, REJECTED)
    status = await check(harness, "kestrel")
    assert (status["state"], status["credit"]) == ("Redeemed", "10.000 OMR")
    assert status["redeemedAt"] == granted["redeemedAt"]
    assert await harness.sql("SELECT count(*) FROM credit_ledger") == [(1,)]


async def test_restored_rejection_of_another_spec_stays(harness: ControllerHarness) -> None:
    """The name was granted with another spec: IdempotencyConflict is what it would say."""
    code = await harness.issue()
    harness.apply("kestrel", without_order(code))
    await decide(harness, "kestrel")
    restore(harness, "kestrel", without_order(code, "somebody-else"), REJECTED)
    assert (await check(harness, "kestrel"))["state"] == "Rejected"


@pytest.mark.parametrize("ordering", [False, True], ids=["code", "order"])
async def test_restored_grant_that_the_ledger_does_not_know_is_reported_and_grants_nothing(
    harness: ControllerHarness, ordering: bool
) -> None:
    """A status never makes a grant or an order, although the code could be redeemed."""
    code = await harness.issue()
    restored, status = (spec(code), COMPLETED) if ordering else (without_order(code), REDEEMED)
    restore(harness, "kestrel", restored, status)
    found = await check(harness, "kestrel")
    assert (found["state"], found["finished"], reason(found)) == ("RolledBack", True, ("False", "NotInLedger"))
    assert "credit" not in found
    assert await harness.events("kestrel") == ["NotInLedger"]
    assert await harness.sql("SELECT count(*) FROM credit_ledger") == [(0,)]
    assert (await check(harness, "kestrel"))["state"] == "RolledBack"
    restore(harness, "kestrel", restored, {})
    harness.parts.feed.redemption_cache.put(
        harness.server.objects["/apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions/kestrel"]
    )
    again = await (harness.reconcile if ordering else lambda name: decide(harness, name))("kestrel")
    assert again["state"] in ("Redeemed", "Completed")


async def test_restored_status_of_an_undone_redemption_becomes_rolled_back(harness: ControllerHarness) -> None:
    asked = without_order(await harness.issue())
    harness.apply("kestrel", asked)
    granted = await decide(harness, "kestrel")
    await harness.sql("DELETE FROM promo_redemptions")
    await harness.sql("DELETE FROM credit_ledger")
    await harness.sql("UPDATE promo_codes SET times_redeemed = 0, granted_minor = 0")
    await harness.sql("UPDATE vouchers.redemption SET undo_reported_at = now()")
    restore(harness, "kestrel", asked, granted)
    assert (await check(harness, "kestrel"))["state"] == "RolledBack"


@pytest.mark.parametrize("status", [REJECTED, {"finished": True, "state": "RolledBack"}], ids=["rejected", "undone"])
async def test_restored_status_of_a_completed_order_becomes_completed(
    harness: ControllerHarness, status: Status
) -> None:
    asked = spec(await harness.issue())
    harness.apply("kestrel", asked)
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"
    restore(harness, "kestrel", asked, status)
    assert (await check(harness, "kestrel"))["state"] == "Completed"
    assert await harness.sql("SELECT count(*) FROM orders") == [(1,)]


async def test_status_that_is_what_the_ledger_says_is_not_written(harness: ControllerHarness) -> None:
    code = await harness.issue()
    names = [unique("good") for _ in range(3)]
    harness.apply(names[0], without_order(code))
    harness.apply(names[1], without_order("NOBODYS"))
    harness.apply(names[2], spec(await harness.issue()))
    for name in names[:2]:
        await decide(harness, name)
    await harness.reconcile(names[2])
    before = len(harness.server.calls)
    await harness.parts.status_check.check("billing")
    assert [call for call in harness.server.calls[before:] if not call.startswith("GET ")] == []
    assert not any(harness.parts.feed.order_queue.knows(f"billing/{name}") for name in names)

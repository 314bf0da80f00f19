"""A resync of a cluster that is restored from a backup: codes stay with the Vouchers of their names.

See also: tests/ledger/test_restore.py for who owns a code.
"""

from typing import Any, Final

import pytest

from tests.cluster.controller_harness import ControllerHarness
from tests.cluster.resources import Object, unique
from tests.ledger.helpers import terms
from voucher_operator.resources.errors import ApiUnavailableError

PATH: Final = "/apis/billing.openova.io/v1alpha1/namespaces/billing/vouchers"
LIVE: Final = "SELECT owner_uid, active FROM vouchers.terms WHERE revoked_at IS NULL"
FROM_SECRET: Final[Object] = {"codeFrom": {"secretKeyRef": {"name": "late", "key": "code"}}}
WAS_ISSUED: Final[Object] = {"conditions": [{"type": "Redeemable", "status": "True", "reason": "Active"}]}


def restore(harness: ControllerHarness, name: str, **spec: Any) -> Object:
    """Have a Voucher that was created again."""
    metadata = {"name": name, "namespace": "billing", "uid": unique("new"), "generation": 1}
    times = {"resourceVersion": unique("version"), "creationTimestamp": "2027-01-01T00:00:00Z"}
    credit = {"amount": "25.500", "currency": "OMR"}
    finalizers = {"finalizers": ["billing.openova.io/revoke"]}
    body = {"metadata": metadata | times | finalizers, "spec": {"credit": credit, **spec}, "status": {}}
    harness.server.objects[f"{PATH}/{name}"] = body
    return body


@pytest.mark.parametrize("spec", [{"code": "CODE"}, FROM_SECRET], ids=["code", "secret"])
async def test_code_of_a_restored_voucher_is_not_revoked_before_it_is_issued_again(
    harness: ControllerHarness, spec: Object
) -> None:
    """It may wait for its Secret, which the restore creates later."""
    await harness.ledger.put(terms(uid="old"))
    restore(harness, "first", **spec)
    await harness.parts.resync.resync()
    assert await harness.sql(LIVE) == [("old", True)]


async def test_restored_voucher_takes_over_its_row(harness: ControllerHarness) -> None:
    await harness.ledger.put(terms(uid="old"))
    body = restore(harness, "first", code="CODE", description="a voucher")
    await harness.parts.resync.resync()
    await harness.parts.vouchers.reconcile("billing/first")
    assert await harness.sql(LIVE) == [(body["metadata"]["uid"], True)]


@pytest.mark.parametrize("code", ["OTHER", "CODE"])
async def test_code_that_no_restored_voucher_wants_is_revoked(harness: ControllerHarness, code: str) -> None:
    """Because the one of its name has another code, or has one on the ledger already."""
    await harness.ledger.put(terms(uid="old"))
    body = restore(harness, "first", code=code)
    if code == "CODE":
        await harness.ledger.put(terms("OTHER", uid=body["metadata"]["uid"]))
    await harness.parts.resync.resync()
    assert ("old", True) not in await harness.sql(LIVE)


async def test_absent_voucher_of_a_restore_gets_its_code_back_before_another_one_does(
    harness: ControllerHarness,
) -> None:
    """The other one waited for the code, and exists again before the one that had it."""
    await harness.ledger.put(terms(uid="old"))
    restore(harness, "a-other", code="CODE")
    await harness.parts.resync.resync()
    await harness.parts.vouchers.reconcile("billing/a-other")
    assert await harness.sql(LIVE) == []
    body = restore(harness, "first", code="CODE")
    await harness.parts.resync.resync()
    for name in ("first", "a-other", "first"):
        await harness.parts.vouchers.reconcile(f"billing/{name}")
    assert await harness.sql(LIVE) == [(body["metadata"]["uid"], True)]


@pytest.mark.parametrize("status", [{}, WAS_ISSUED], ids=["without status", "with status"])
async def test_deleted_voucher_that_was_not_issued_since_a_restore_leaves_no_code(
    harness: ControllerHarness, status: Object
) -> None:
    """The ledger has the uid of the Voucher that was backed up."""
    await harness.ledger.put(terms(uid="old"))
    body = restore(harness, "first", **FROM_SECRET) | {"status": status}
    for _ in range(2):
        await harness.parts.vouchers.revoke(body)
    assert await harness.sql(LIVE) == []
    assert await harness.sql("SELECT active, deleted_at IS NULL FROM promo_codes") == [(False, False)]
    assert await harness.events("first") == ["Revoked"]


@pytest.mark.parametrize("exists", [True, False], ids=["created again", "deleted again"])
async def test_late_deletion_revokes_nothing_of_a_later_voucher_of_the_name(
    harness: ControllerHarness, exists: bool
) -> None:
    """The finalizer was removed by somebody else; the Event would say that the code cannot be redeemed."""
    first = restore(harness, "first", code="CODE") | {"status": WAS_ISSUED}
    await harness.ledger.put(terms(uid=first["metadata"]["uid"]))
    later = restore(harness, "first", code="CODE")
    await harness.ledger.put(terms(uid=later["metadata"]["uid"]))
    if not exists:
        del harness.server.objects[f"{PATH}/first"]
    await harness.parts.vouchers.revoke(first)
    assert await harness.sql(LIVE) == [(later["metadata"]["uid"], True)]
    assert await harness.events("first") == []


async def test_deletion_is_tried_again_when_the_voucher_cannot_be_read(harness: ControllerHarness) -> None:
    await harness.ledger.put(terms(uid="old"))
    body = restore(harness, "first", **FROM_SECRET)
    harness.server.faults[f"GET {PATH}/first"] = (503, "")
    with pytest.raises(ApiUnavailableError):
        await harness.parts.vouchers.revoke(body)
    harness.server.faults.clear()
    await harness.parts.vouchers.revoke(body)
    assert await harness.sql(LIVE) == []


async def test_code_is_revoked_when_the_secret_of_the_restored_voucher_has_another_one(
    harness: ControllerHarness,
) -> None:
    """That one belongs to another Voucher, so the restored one is never issued."""
    await harness.ledger.put(terms(uid="old"))
    holder = restore(harness, "holder", code="TAKEN")["metadata"]["uid"]
    await harness.ledger.put(terms("TAKEN", uid=holder, name="holder"))
    restore(harness, "first", **harness.secret("late", "TAKEN"))
    await harness.parts.resync.resync()
    assert len(await harness.sql(LIVE)) == 2
    await harness.parts.vouchers.reconcile("billing/first")
    await harness.parts.resync.resync()
    assert await harness.sql(LIVE) == [(holder, True)]

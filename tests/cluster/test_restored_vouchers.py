"""A resync of a cluster that is restored from a backup: codes stay with the Vouchers of their names.

See also: tests/ledger/test_restore.py for who owns a code.
"""

from typing import Any, Final

import pytest

from tests.cluster.controller_harness import ControllerHarness
from tests.cluster.resources import Object, unique
from tests.ledger.helpers import terms

PATH: Final = "/apis/billing.openova.io/v1alpha1/namespaces/billing/vouchers"
LIVE: Final = "SELECT owner_uid, active FROM vouchers.terms WHERE revoked_at IS NULL"


def restore(harness: ControllerHarness, name: str, **spec: Any) -> Object:
    """Have a Voucher that was created again."""
    metadata = {"name": name, "namespace": "billing", "uid": unique("new"), "generation": 1}
    times = {"resourceVersion": unique("version"), "creationTimestamp": "2027-01-01T00:00:00Z"}
    credit = {"amount": "25.500", "currency": "OMR"}
    finalizers = {"finalizers": ["billing.openova.io/revoke"]}
    body = {"metadata": metadata | times | finalizers, "spec": {"credit": credit, **spec}, "status": {}}
    harness.server.objects[f"{PATH}/{name}"] = body
    return body


@pytest.mark.parametrize(
    "spec", [{"code": "CODE"}, {"codeFrom": {"secretKeyRef": {"name": "late", "key": "code"}}}], ids=["code", "secret"]
)
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

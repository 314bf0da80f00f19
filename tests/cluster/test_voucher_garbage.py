"""What others write into the status or the metadata of a Voucher neither keeps it nor releases it unrevoked."""

from typing import Any, Final

import pytest

from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, ready, until
from tests.cluster.test_voucher_delete import REVOKED, row_state
from tests.conftest import Operators

NEVER: Final = "9999-01-01T00:00:00+00:00"
PROGRESS: Final[tuple[Any, ...]] = (
    "text",
    ["list"],
    7,
    {"revoke": "text"},
    {"revoke": ["list"]},
    {"revoke": {"started": "yesterday"}},
    {"revoke": {"started": 7, "retries": "many", "subrefs": 7}},
    {"revoke": {"started": NEVER, "delayed": NEVER, "retries": 99999999}},
    {"revoke": {"success": True}},
    {"revoke": {"failure": True}},
    {"revoke": {"purpose": "create", "success": True, "subrefs": ["a/b"]}},
    {"other": {"started": "yesterday"}},
)
STATUSES: Final[list[dict[str, Any]]] = [
    *({"kopf": {"progress": one}} for one in PROGRESS),
    {"kopf": {"progress": {}, "dummy": {"a": "b"}}},
    {"kopf": {"anything": "else"}},
    {"observedGeneration": 99},
    {"observedGeneration": -1, "state": "Pending"},
]
ANNOTATIONS: Final = (
    "kopf.zalando.org/last-handled-configuration",
    "kopf.zalando.org/revoke",
    "kopf.dev/revoke",
    "kopf.zalando.org/touch-dummy",
)


@pytest.mark.long
def test_garbage_at_a_deletion_is_ignored_and_the_code_revoked(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """Written while the operator is stopped, so that it finds the deletion and the garbage together."""
    operator = operators.start(env=FAST)
    vouchers = [api.voucher() for _ in range(len(STATUSES) + 3)]
    for voucher in vouchers:
        voucher.wait(ready("Issued"))
    operator.stop()
    for voucher, garbage in zip(vouchers, STATUSES, strict=False):
        voucher.set_status(garbage)
    *_, annotated, without_status, conditions = vouchers
    annotated.patch({"metadata": {"annotations": dict.fromkeys(ANNOTATIONS, "{")}})
    without_status.set_status(None)
    time = "2026-12-01t00:00:00z"
    odd = {"type": "Redeemable", "status": "Unknown", "reason": "X", "message": "", "lastTransitionTime": time}
    conditions.set_status({"conditions": [odd]})
    for voucher in vouchers:
        voucher.delete()
    operators.start(env=FAST)
    for voucher in vouchers:
        voucher.wait_gone()
    assert [row_state(ledger, voucher) for voucher in vouchers] == [REVOKED] * len(vouchers)


def test_garbage_in_the_status_of_a_living_voucher_is_removed(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher()
    voucher.wait(ready("Issued"))
    voucher.set_status({"kopf": {"progress": {"revoke": {"success": True}}}})
    voucher.wait(lambda body: "kopf" not in body["status"])
    time = "2026-12-01t00:00:00z"
    odd = {"type": "Ready", "status": "False", "reason": "X", "message": "", "lastTransitionTime": time}
    voucher.set_status({"conditions": [odd]})
    voucher.wait(ready("Issued"))
    voucher.delete()
    voucher.wait_gone()
    assert row_state(sovereign.ledger, voucher) == REVOKED


@pytest.mark.parametrize("ours", [0, 1, 2])
def test_finalizers_of_others_in_any_order_stay(sovereign: Sovereign, ours: int) -> None:
    """The code is revoked at once; the Voucher goes when the others have removed theirs."""
    voucher = sovereign.api.voucher()
    body = voucher.wait(ready("Issued"))
    others = ["example.com/first", "example.com/second"]
    (own,) = body["metadata"]["finalizers"]
    finalizers = [*others[:ours], own, *others[ours:]]
    voucher.patch({"metadata": {"finalizers": finalizers}})
    voucher.delete()
    until(lambda: voucher.body()["metadata"]["finalizers"] == others, "removal of the operator's finalizer")
    assert row_state(sovereign.ledger, voucher) == REVOKED
    voucher.patch({"metadata": {"finalizers": None}})
    voucher.wait_gone()

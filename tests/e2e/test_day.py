"""A sovereign-admin's day, on a real cluster."""

from tests.e2e.objects import redemption, voucher
from tests.e2e.release import Release


def test_issue_and_redeem(billing: Release) -> None:
    kind, namespace = billing.kind, billing.namespace
    kind.apply(voucher("muscat", "OMANTEL-MUSCAT-200", maxRedemptions=50), namespace=namespace)
    kind.wait("voucher/muscat", "condition=Ready", namespace)
    kind.apply(redemption("ahmed", "ahmed", code="omantel-muscat-200"), namespace=namespace)
    kind.wait("redemption/ahmed", "jsonpath={.status.finished}=true", namespace)
    assert kind.get("redemption", "ahmed", namespace)["status"]["credit"] == "5.000 OMR"
    kind.wait("voucher/muscat", "jsonpath={.status.redeemed}=1/50", namespace)
    assert "balance 5.000 OMR" in billing.exec("voucher-operator", "balance", "ahmed")
    assert billing.verify() == "the ledger is consistent"

"""A sovereign-admin's day, on a real cluster: issue, redeem, revoke, issue again, and a code that nobody may read."""

from tests.e2e.objects import condition, from_secret, redemption, secret, voucher
from tests.e2e.release import Release

FINISHED = "jsonpath={.status.finished}=true"


def _reason(billing: Release, name: str) -> str:
    billing.kind.wait(f"redemption/{name}", FINISHED, billing.namespace)
    return str(condition(billing.kind.get("redemption", name, billing.namespace), "Ready")["reason"])


def test_voucher_is_issued_and_redeemed(billing: Release) -> None:
    kind, namespace = billing.kind, billing.namespace
    kind.apply(voucher("muscat", "OMANTEL-MUSCAT-200", maxRedemptions=50), namespace=namespace)
    kind.wait("voucher/muscat", "condition=Ready", namespace)
    kind.apply(redemption("ahmed", "ahmed", code="omantel-muscat-200"), namespace=namespace)
    assert _reason(billing, "ahmed") == "Redeemed"
    assert kind.get("redemption", "ahmed", namespace)["status"]["credit"] == "5.000 OMR"
    kind.wait("voucher/muscat", "jsonpath={.status.redeemed}=1/50", namespace)
    assert "balance 5.000 OMR" in billing.exec("voucher-operator", "balance", "ahmed")
    table = kind.kubectl("get", "vch", "muscat", f"--namespace={namespace}").splitlines()
    assert table[0].split() == ["NAME", "CODE", "CREDIT", "REDEEMED", "STATE", "READY", "AGE"]
    assert table[1].split()[:7] == ["muscat", "OMANTEL-MUSCAT-200", "5.000", "OMR", "1/50", "Active", "True"]
    assert billing.verify() == "the ledger is consistent"


def test_revoked_voucher_comes_back_with_its_counter(billing: Release) -> None:
    """The same row comes back, with its counter; what was given stays given, and is not given again."""
    kind, namespace = billing.kind, billing.namespace
    issued = voucher("salalah", "SALALAH-KHAREEF", maxRedemptions=2)
    kind.apply(issued, redemption("huda", "huda", code="SALALAH-KHAREEF"), namespace=namespace)
    assert _reason(billing, "huda") == "Redeemed"

    kind.kubectl("delete", "voucher", "salalah", f"--namespace={namespace}", "--timeout=60s")
    kind.apply(redemption("late", "late", code="SALALAH-KHAREEF"), namespace=namespace)
    assert _reason(billing, "late") == "VoucherNotFound"
    assert "balance 5.000 OMR" in billing.exec("voucher-operator", "balance", "huda")

    kind.kubectl("delete", "redemption", "huda", "late", f"--namespace={namespace}")
    kind.apply(issued, namespace=namespace)
    kind.wait("voucher/salalah", "condition=Ready", namespace)
    kind.wait("voucher/salalah", "jsonpath={.status.redeemed}=1/2", namespace)
    again = [redemption(name, name, code="SALALAH-KHAREEF") for name in ("huda", "late")]
    kind.apply(*again, namespace=namespace)
    assert [_reason(billing, name) for name in ("huda", "late")] == ["Redeemed", "Redeemed"]
    kind.wait("voucher/salalah", "jsonpath={.status.state}=Exhausted", namespace)
    assert "balance 5.000 OMR" in billing.exec("voucher-operator", "balance", "huda")


def test_secret_code_is_redeemed_and_not_shown(billing: Release) -> None:
    """The Secret comes late, the code is redeemed by it, and it is to be read in no other place."""
    kind, namespace = billing.kind, billing.namespace
    code = "FRIENDS-7Q4X-PARTNER"
    kind.apply(voucher("partners", "", codeFrom=from_secret("partners-code")), namespace=namespace)
    waiting = 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}=SecretNotFound'
    kind.wait("voucher/partners", waiting, namespace)
    kind.apply(secret("partners-code", code=f"{code.lower()}\n"), namespace=namespace)
    kind.wait("voucher/partners", "condition=Ready", namespace)
    kind.apply(redemption("layla", "layla", codeFrom=from_secret("partners-code")), namespace=namespace)
    assert _reason(billing, "layla") == "Redeemed"
    shown = kind.kubectl("get", "vouchers,redemptions,events", f"--namespace={namespace}", "--output=yaml")
    assert "partners-code" in shown
    for text in (shown, billing.logs()):
        assert code.lower() not in text.lower()


def test_second_voucher_of_a_code_takes_over_after_deletion(billing: Release) -> None:
    """The older one keeps it (of one second, the first by name), the newer one says so and takes it over in the end."""
    kind, namespace = billing.kind, billing.namespace
    kind.apply(voucher("one-code-a", "ONE-CODE"), namespace=namespace)
    kind.wait("voucher/one-code-a", "condition=Ready", namespace)
    kind.apply(voucher("one-code-b", "ONE-CODE"), namespace=namespace)
    kind.wait("voucher/one-code-b", "condition=Stalled", namespace)
    assert condition(kind.get("voucher", "one-code-b", namespace), "Ready")["reason"] == "CodeConflict"
    kind.kubectl("delete", "voucher", "one-code-a", f"--namespace={namespace}", "--timeout=60s")
    kind.wait("voucher/one-code-b", "condition=Ready", namespace)

"""What is edited in the cluster goes back to Git, what is edited in the ledger goes back to the Voucher, and Flux waits
for an operator that is away.
"""

import pytest

from tests.cluster.resources import Object, condition, status, until
from tests.gitops.sovereign import Sovereign, applied, checking, failed, voucher

CODE = "OMANTEL-MUSCAT-200"


def test_flux_reverts_an_edit_in_the_cluster(sovereign: Sovereign, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = sovereign.issue()
    edited = sovereign.voucher("muscat-200")
    # As a person would; `active` is not even in Git.
    monkeypatch.setenv(
        "KUBE_EDITOR", "sed -i -e 's/maxRedemptions: 50/maxRedemptions: 7/' -e 's/active: true/active: false/'"
    )
    sovereign.cluster.kubectl("edit", "voucher", "muscat-200", f"--namespace={sovereign.namespace}")
    edited.wait(status(state="Inactive", redeemed="0/7"))
    sovereign.follow(interval="2s")
    edited.wait(status(state="Active", redeemed="0/50"))
    until(lambda: sovereign.ledger.promo(CODE) == (200_000, True, 50, 0, False), "ledger row as in Git")
    sovereign.wait(applied(revision))


def test_flux_recreates_a_deleted_voucher(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.redeem(CODE)
    deleted = sovereign.voucher("muscat-200")
    deleted.delete()
    deleted.wait_gone()
    sovereign.request("now")
    sovereign.voucher("muscat-200").wait(status(state="Active", redeemed="1/50"))


def test_operator_reverts_an_edit_in_the_ledger(sovereign: Sovereign) -> None:
    revision = sovereign.issue()
    voucher = sovereign.voucher("muscat-200")
    generation = voucher.body()["metadata"]["generation"]
    sovereign.operators.allow.append("DriftCorrected")
    sovereign.ledger.rows("UPDATE promo_codes SET max_redemptions = 9999, credit_omr = 1000 WHERE code = %s", CODE)
    voucher.wait_event("DriftCorrected")
    assert sovereign.ledger.promo(CODE) == (200_000, True, 50, 0, False)
    # Flux had no part in it.
    assert voucher.body()["metadata"]["generation"] == generation
    assert applied(revision)(sovereign.kustomization())


def test_flux_waits_for_the_operator(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.operator.stop()
    late = sovereign.add("late", voucher("late", "LATE"))
    sovereign.wait(checking(late))
    assert sovereign.ledger.promo("LATE") == ()
    sovereign.operator.start()
    sovereign.wait(applied(late))
    assert sovereign.ledger.promo("LATE") == (10_000, True, 0, 0, False)


def test_flux_waits_for_the_operator_to_see_a_change(sovereign: Sovereign) -> None:
    """The conditions are still those of the old spec, and say Ready."""
    sovereign.issue()
    sovereign.operator.stop()

    def raise_cap(spec: Object) -> None:
        spec["maxRedemptions"] = 60

    changed = sovereign.change("muscat-200", raise_cap)
    sovereign.wait(checking(changed))
    sovereign.operator.start()
    sovereign.wait(applied(changed))
    assert sovereign.ledger.promo(CODE)[2] == 60


def test_flux_recovers_after_a_health_check_timeout(sovereign: Sovereign) -> None:
    sovereign.issue()
    # Flux takes no shorter one.
    sovereign.follow(timeout="30s", retryInterval="1s")
    sovereign.operator.stop()
    revision = sovereign.add("late", voucher("late", "LATE"))
    message = condition(sovereign.wait(failed(revision, "HealthCheckFailed")), "Ready")["message"]
    assert f"timeout waiting for: [Voucher/{sovereign.namespace}/late status: 'InProgress']" in message
    sovereign.operator.start()
    sovereign.wait(applied(revision))
    assert sovereign.ledger.promo("LATE") != ()

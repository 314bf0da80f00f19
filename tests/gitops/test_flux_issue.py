"""A commit issues vouchers; a bad one fails the Kustomization at once, and a good one repairs it."""

from tests.cluster.resources import Object, condition, ready, stalled, state
from tests.gitops.sovereign import Sovereign, applied, failed, voucher


def test_commit_is_ready_when_the_ledger_holds_the_vouchers(sovereign: Sovereign) -> None:
    revision = sovereign.issue()
    assert sovereign.ledger.promo("OMANTEL-MUSCAT-200") == (200_000, True, 50, 0, False)
    assert sovereign.ledger.promo("SALALAH-KHAREEF-2090") == (25_500, True, 1000, 0, False)
    ready = condition(sovereign.kustomization(), "Ready")
    assert ready["message"] == f"Applied revision: {revision}"
    assert condition(sovereign.kustomization(), "Healthy")["status"] == "True"


def test_conflicting_code_fails_at_once_until_a_commit_fixes_it(sovereign: Sovereign) -> None:
    sovereign.issue()
    bad = sovereign.add("copy", voucher("copy", "OMANTEL-MUSCAT-200"))
    message = condition(sovereign.wait(failed(bad, "HealthCheckFailed")), "Ready")["message"]
    assert "failed early due to stalled resources" in message
    assert f"Voucher/{sovereign.namespace}/copy status: 'Failed'" in message
    assert "muscat-200" not in message
    assert stalled("CodeConflict")(sovereign.voucher("copy").body())
    sovereign.remove("copy")
    good = sovereign.add("other", voucher("other", "OMANTEL-MUSCAT-201"))
    sovereign.wait(applied(good))
    # The one that lost has left, and has not taken the winner's code with it.
    sovereign.redeem("OMANTEL-MUSCAT-200")
    sovereign.redeem("OMANTEL-MUSCAT-201")


def test_conflicting_voucher_does_not_block_others(sovereign: Sovereign) -> None:
    sovereign.issue()
    both = f"{voucher('copy', 'OMANTEL-MUSCAT-200')}---\n{voucher('fine', 'MUSCAT-FINE')}"
    revision = sovereign.add("both", both)
    sovereign.wait(failed(revision, "HealthCheckFailed"))
    sovereign.voucher("fine").wait(ready("Issued"))


def test_yaml_that_the_api_server_refuses_changes_nothing(sovereign: Sovereign) -> None:
    sovereign.issue()

    def edit(spec: Object) -> None:
        spec.update(code="OMANTEL-MUSCAT-300", maxRedemptions=1)

    bad = sovereign.change("muscat-200", edit)
    message = condition(sovereign.wait(failed(bad, "ReconciliationFailed")), "Ready")["message"]
    assert "code is immutable: put the old value back and create another Voucher" in message
    assert sovereign.ledger.promo("OMANTEL-MUSCAT-200")[2] == 50
    sovereign.wait(applied(sovereign.source.revert()))


def test_voucher_in_another_currency_fails_at_once(sovereign: Sovereign) -> None:
    sovereign.issue()
    bad = sovereign.add("dollars", voucher("dollars", "DOLLARS", credit={"amount": 5, "currency": "USD"}))
    message = condition(sovereign.wait(failed(bad, "HealthCheckFailed")), "Ready")["message"]
    assert f"Voucher/{sovereign.namespace}/dollars status: 'Failed'" in message
    assert stalled("CurrencyMismatch")(sovereign.voucher("dollars").body())
    sovereign.wait(applied(sovereign.source.revert()))
    assert state("Active")(sovereign.voucher("muscat-200").body())

"""Vouchers that change, leave and come back in Git; the ledger keeps what happened."""

from tests.cluster.resources import Object, state, status
from tests.gitops.sovereign import FOLDER, Sovereign, applied

CODE = "OMANTEL-MUSCAT-200"


def test_reverted_commit_restores_the_cap(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.redeem(CODE, times=2)

    def lower(spec: Object) -> None:
        spec["maxRedemptions"] = 1

    sovereign.wait(applied(sovereign.change("muscat-200", lower)))
    # A used-up voucher is what Git asked for: Flux is Ready with it.
    sovereign.voucher("muscat-200").wait(status(state="Exhausted", redeemed="2/1", remaining=0))
    assert sovereign.api.redeem(CODE).result() == ("Rejected", "RedemptionLimitReached")
    sovereign.wait(applied(sovereign.source.revert()))
    sovereign.voucher("muscat-200").wait(status(state="Active", redeemed="2/50", remaining=48))
    sovereign.redeem(CODE)


def test_pruned_voucher_is_revoked_and_keeps_its_history(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.redeem(CODE, times=3)
    pruned = sovereign.voucher("muscat-200")
    history = _history(sovereign)
    assert len(history) == 3
    sovereign.wait(applied(sovereign.remove("muscat-200")))
    pruned.wait_gone()
    assert sovereign.ledger.promo(CODE) == (200_000, False, 50, 3, True)
    assert _history(sovereign) == history
    assert sovereign.api.redeem(CODE).result() == ("Rejected", "VoucherNotFound")
    sovereign.wait(applied(sovereign.source.revert()))
    sovereign.voucher("muscat-200").wait(status(state="Active", redeemed="3/50"))
    assert sovereign.ledger.promo(CODE) == (200_000, True, 50, 3, False)


def _history(sovereign: Sovereign) -> list[tuple[object, ...]]:
    """Return each redemption with the entry that it granted."""
    return sovereign.ledger.rows(
        "SELECT r.customer_id, r.created_at, e.id, e.amount_minor FROM promo_redemptions AS r "
        "JOIN credit_ledger AS e ON e.customer_id = r.customer_id AND e.reason = 'promo:' || r.code "
        "WHERE r.code = %s ORDER BY r.customer_id",
        CODE,
    )


def test_all_vouchers_are_revoked_with_their_kustomization(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.redeem(CODE)
    pruned = [sovereign.voucher(name) for name in ("muscat-200", "salalah-khareef")]
    sovereign.end()
    for one in pruned:
        one.wait_gone()
    assert sovereign.ledger.rows("SELECT code FROM promo_codes WHERE deleted_at IS NULL") == []
    assert len(_history(sovereign)) == 1


def test_orphaned_vouchers_stay_issued(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.follow(deletionPolicy="Orphan")
    sovereign.end()
    assert state("Active")(sovereign.voucher("muscat-200").body())
    sovereign.redeem(CODE)


def test_renamed_voucher_keeps_code_and_counter(sovereign: Sovereign) -> None:
    sovereign.issue()
    sovereign.redeem(CODE, times=2)
    old = sovereign.voucher("muscat-200")
    # The new one may be looked at before the old one is gone.
    sovereign.follow(retryInterval="1s")
    path = f"{FOLDER}/muscat-200.yaml"
    text = sovereign.source.repository.read(path).replace("name: muscat-200", "name: muscat")
    revision = sovereign.source.commit({path: text})
    sovereign.wait(applied(revision))
    old.wait_gone()
    sovereign.voucher("muscat").wait(status(state="Active", redeemed="2/50"))
    sovereign.redeem(CODE)


def test_suspended_changes_wait_for_resume(sovereign: Sovereign) -> None:
    sovereign.issue()
    voucher = sovereign.voucher("muscat-200")
    _suspend(sovereign, True)

    def stop(spec: Object) -> None:
        spec["active"] = False

    revision = sovereign.change("muscat-200", stop)
    # Asked for or not, Flux looks at nothing; what somebody does meanwhile reaches the ledger.
    sovereign.request("while suspended")
    voucher.edit(maxRedemptions=7)
    voucher.wait(status(state="Active", redeemed="0/7"))
    assert sovereign.kustomization()["status"]["lastAttemptedRevision"] != revision
    _suspend(sovereign, False)
    sovereign.wait(applied(revision))
    voucher.wait(status(state="Inactive", redeemed="0/50"))


def _suspend(sovereign: Sovereign, suspended: bool) -> None:
    patch = f'{{"spec": {{"suspend": {str(suspended).lower()}}}}}'
    where = ("kustomization.kustomize.toolkit.fluxcd.io/vouchers", f"--namespace={sovereign.namespace}")
    sovereign.cluster.kubectl("patch", *where, "--type=merge", f"--patch={patch}")


def test_dollar_variable_in_a_description_is_not_substituted(sovereign: Sovereign) -> None:
    """The vouchers' Kustomization substitutes nothing."""
    sovereign.issue()

    def describe(spec: Object) -> None:
        spec["description"] = "Pay with ${CODE} today"

    sovereign.wait(applied(sovereign.change("muscat-200", describe)))
    assert sovereign.voucher("muscat-200").spec["description"] == "Pay with ${CODE} today"
    assert state("Active")(sovereign.voucher("muscat-200").body())

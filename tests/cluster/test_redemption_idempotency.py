"""A Redemption is granted once, also when it is deleted, created again or its status wiped."""

from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import (
    FAST,
    CustomObject,
    Object,
    ResourceClient,
    condition,
    ready,
    state,
    unique,
    until,
    waiting,
)
from tests.conftest import Operators

GRANTED = ("Redeemed", "Redeemed")


def issued(sovereign: Sovereign) -> CustomObject:
    """Return a Voucher that can be redeemed."""
    voucher = sovereign.api.voucher()
    voucher.wait(state("Active"))
    return voucher


def lasting(body: Object) -> Object:
    """Return what a status says of the ledger's answer."""
    return {name: body["status"].get(name) for name in ("state", "finished", "finishedAt", "credit", "redeemedAt")}


def gone(redemption: CustomObject) -> None:
    """Delete it."""
    redemption.delete()
    redemption.wait_gone()


def test_recreated_redemption_reads_the_first_result(sovereign: Sovereign) -> None:
    """The times, too, and even where the voucher has been closed and changed meanwhile; the TTL is no part of it."""
    voucher, name, user = issued(sovereign), unique("redemption"), unique("user")
    first = sovereign.api.redeem(voucher.code, name=name, user=user)
    assert first.result() == GRANTED
    answer = lasting(first.body())
    gone(first)
    voucher.edit(active=False, credit={"amount": 99})
    voucher.wait(state("Inactive"))
    again = sovereign.api.redeem(voucher.code, name=name, user=user, ttlSecondsAfterFinished=86400)
    assert again.result() == GRANTED
    assert again.uid != first.uid
    assert lasting(again.body()) == answer
    assert (sovereign.ledger.balance(user), sovereign.ledger.entries(user)) == (10000, 1)
    assert sovereign.ledger.promo(voucher.code)[3] == 1


def test_recreated_redemption_after_refusal_is_decided_anew(sovereign: Sovereign) -> None:
    """Deleted and created again under its name, once the voucher was opened; also with another spec."""
    voucher, name, user = issued(sovereign), unique("redemption"), unique("user")
    voucher.edit(active=False)
    voucher.wait(state("Inactive"))
    first = sovereign.api.redeem(voucher.code, name=name, user=unique("other"))
    assert first.result() == ("Rejected", "VoucherInactive")
    gone(first)
    voucher.edit(active=True)
    voucher.wait(state("Active"))
    assert sovereign.api.redeem(voucher.code, name=name, user=user).result() == GRANTED
    assert sovereign.ledger.balance(user) == 10000


def test_refusal_is_kept_for_the_same_object(sovereign: Sovereign) -> None:
    """A voucher that is activated later does not change an earlier refusal, even when its status is wiped."""
    voucher = issued(sovereign)
    voucher.edit(active=False)
    voucher.wait(state("Inactive"))
    redemption = sovereign.api.redeem(voucher.code)
    assert redemption.result() == ("Rejected", "VoucherInactive")
    voucher.edit(active=True)
    voucher.wait(state("Active"))
    redemption.set_status(None)
    assert redemption.result() == ("Rejected", "VoucherInactive")
    assert len(redemption.events()) <= 1


def test_wiped_status_is_restored_from_the_ledger(sovereign: Sovereign) -> None:
    """Wiped, marked unfinished, or changed to another result: the ledger's result is written again."""
    voucher, user = issued(sovereign), unique("user")
    redemption = sovereign.api.redeem(voucher.code, user=user)
    assert redemption.result() == GRANTED
    answer = lasting(redemption.body())
    lie = {"finished": False, "state": "Rejected", "credit": "1000000.000 OMR", "observedGeneration": 1}
    for wiped in (None, {"finished": None}, lie):
        redemption.set_status(wiped)
        redemption.wait(lambda body: lasting(body) == answer and condition(body, "Ready").get("status") == "True")
    assert (sovereign.ledger.balance(user), sovereign.ledger.entries(user)) == (10000, 1)


def test_wiped_status_of_a_waiting_redemption_is_continued(sovereign: Sovereign) -> None:
    api, secret, user = sovereign.api, unique("late"), unique("user")
    voucher = issued(sovereign)
    redemption = api.redeem(codeFrom={"secretKeyRef": {"name": secret, "key": "code"}}, user=user)
    redemption.wait(waiting("SecretNotFound"))
    redemption.set_status(None)
    redemption.wait(waiting("SecretNotFound"))
    api.secret(secret, code=voucher.code)
    assert redemption.result() == GRANTED
    assert sovereign.ledger.entries(user) == 1


def test_redemption_marked_finished_by_a_user_grants_nothing(sovereign: Sovereign) -> None:
    """Who may write a status can stop a Redemption, but gets no credit by it."""
    user = unique("user")
    redemption = sovereign.api.redeem(codeFrom={"secretKeyRef": {"name": unique("no"), "key": "code"}}, user=user)
    redemption.wait(waiting("SecretNotFound"))
    redemption.set_status({"finished": True, "state": "Redeemed"})
    key = f"{sovereign.api.namespace}/{redemption.name}"
    assert sovereign.ledger.rows("SELECT * FROM vouchers.redemption WHERE key = %s", key) == []
    assert sovereign.ledger.balance(user) == 0


def test_redemption_deleted_before_a_decision_grants_nothing(sovereign: Sovereign) -> None:
    api, secret, user = sovereign.api, unique("late"), unique("user")
    voucher = issued(sovereign)
    redemption = api.redeem(codeFrom={"secretKeyRef": {"name": secret, "key": "code"}}, user=user)
    redemption.wait(waiting("SecretNotFound"))
    gone(redemption)
    api.secret(secret, code=voucher.code)
    other = api.redeem(codeFrom={"secretKeyRef": {"name": secret, "key": "code"}})
    assert other.result() == GRANTED
    assert sovereign.ledger.balance(user) == 0


def test_restart_grants_nothing_twice(api: ResourceClient, ledger: LedgerReader, operators: Operators) -> None:
    """Finished ones stay as they are, wiped and wrong ones read their answer, new ones are answered."""
    operator = operators.start(env=FAST)
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    kept, wiped, wrong = (api.redeem(voucher.code, user=user) for user in ("kept", "wiped", "wrong"))
    assert [made.result() for made in (kept, wiped, wrong)] == [GRANTED] * 3
    operator.stop()
    before = kept.body()["metadata"]["resourceVersion"]
    answer = lasting(wiped.body())
    wiped.set_status(None)
    new = api.redeem(voucher.code, user="new")
    wrong.set_status({"state": "Rejected", "credit": None})
    operators.start(env=FAST | {"VOUCHER_OPERATOR_STATUS_CHECK_INTERVAL": "1"})
    wrong.wait(state("Redeemed"))
    assert [made.result() for made in (wiped, new)] == [GRANTED] * 2
    assert lasting(wiped.body()) == answer
    assert kept.body()["metadata"]["resourceVersion"] == before
    assert [ledger.entries(user) for user in ("kept", "wiped", "wrong", "new")] == [1] * 4
    until(lambda: ledger.promo(voucher.code)[3] == 4, "four redemptions")

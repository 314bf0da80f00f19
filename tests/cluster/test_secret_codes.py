"""A code in a Secret: it may come late, be wrong, change or go; the code that was issued stays what it is."""

import pytest

from testbed.kstatus import kstatus
from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import wait_for_full_passes
from tests.cluster.resources import (
    EXCLUDED_SECRET,
    CustomObject,
    Object,
    ResourceClient,
    condition,
    ready,
    stalled,
    state,
    unique,
    waiting,
)

GRANTED = ("Redeemed", "Redeemed")


def source(name: str, key: str = "code") -> Object:
    """Return a `codeFrom`."""
    return {"secretKeyRef": {"name": name, "key": key}}


def absent(name: str) -> str:
    """Return the message for a Secret that does not exist, or is not for codes."""
    wanted = 'create it with the key code and the label billing.openova.io/code: "true".'
    return f"Secret {name} does not exist, or is not for codes: {wanted}"


def issued(api: ResourceClient) -> tuple[CustomObject, str, str]:
    """Return a Voucher that is in the ledger, the name of its Secret, and its code."""
    secret, code = unique("partners"), unique("PARTNER").upper()
    api.secret(secret, code=code)
    voucher = api.voucher(codeFrom=source(secret))
    voucher.wait(ready("Issued"))
    return voucher, secret, code


def test_voucher_waits_for_its_secret(sovereign: Sovereign) -> None:
    api, secret, code = sovereign.api, unique("late"), unique("LATE").upper()
    voucher = api.voucher(codeFrom=source(secret))
    body = voucher.wait(waiting("SecretNotFound"))
    assert condition(body, "Ready")["message"] == absent(secret)
    assert (body["status"]["state"], kstatus(body)) == ("Pending", "InProgress")
    api.secret(secret, other="irrelevant")
    missing = f"Secret {secret} has no key code: add it."
    voucher.wait(lambda body: condition(body, "Ready")["message"] == missing)
    api.secret(secret, code=code, other="irrelevant")
    assert kstatus(voucher.wait(ready("Issued"))) == "Current"
    assert sovereign.ledger.promo(code) == (10000, True, 0, 0, False)
    assert api.redeem(code).result() == GRANTED


@pytest.mark.parametrize("text", ["no code!", "Q7", "", "X" * 65, "TAB\tBED", "ÄÖÜ"], ids=range(6))
def test_malformed_code_is_refused_until_fixed(sovereign: Sovereign, text: str) -> None:
    api, secret, code = sovereign.api, unique("bad"), unique("FIXED").upper()
    api.secret(secret, code=text)
    voucher = api.voucher(codeFrom=source(secret))
    body = voucher.wait(stalled("InvalidCode"))
    assert kstatus(body) == "Failed"
    assert not text or text not in str(body["status"])
    api.secret(secret, code=code)
    voucher.wait(ready("Issued"))
    assert api.redeem(code).result() == GRANTED


@pytest.mark.parametrize("data", [{"code": "GUESSED-CODE"}, {"code": "no code!"}, {"other": "x"}], ids=[*range(3)])
def test_secret_without_label_is_answered_like_an_absent_one(sovereign: Sovereign, data: dict[str, str]) -> None:
    """Also by a code that another Voucher has: its content and its keys are not confirmed."""
    api, secret = sovereign.api, unique("private")
    api.voucher(code="GUESSED-CODE").wait(ready("Issued"))
    api.secret(secret, labels={}, **data)
    voucher, redemption = api.voucher(codeFrom=source(secret)), api.redeem(codeFrom=source(secret))
    for one in (voucher, redemption):
        body = one.wait(waiting("SecretNotFound"))
        assert condition(body, "Ready")["message"] == absent(secret)
    code = unique("LABELLED").upper()
    api.secret(secret, code=code)
    voucher.wait(ready("Issued"))
    assert redemption.result() == GRANTED


def test_label_with_another_value_does_not_count(sovereign: Sovereign) -> None:
    api, secret = sovereign.api, unique("private")
    api.secret(secret, labels={"billing.openova.io/code": "false"}, code=unique("CODE").upper())
    voucher = api.voucher(codeFrom=source(secret))
    assert condition(voucher.wait(waiting("SecretNotFound")), "Ready")["message"] == absent(secret)


def test_issued_code_stays_valid_without_the_label(sovereign: Sovereign) -> None:
    """As after an upgrade from a version that did not need the label."""
    api = sovereign.api
    voucher, secret, code = issued(api)
    api.secret(secret, labels={}, code=code)
    voucher.wait(waiting("SecretNotFound"))
    assert api.redeem(code).result() == GRANTED
    api.secret(secret, code=code)
    voucher.wait(ready("Issued"))


def test_database_secret_is_refused_as_code_source(sovereign: Sovereign) -> None:
    """A password may look like a code; who writes Vouchers could otherwise have it issued."""
    api, password = sovereign.api, unique("PASSWORD").upper()
    api.secret(EXCLUDED_SECRET, password=password)
    voucher = api.voucher(codeFrom=source(EXCLUDED_SECRET, "password"))
    body = voucher.wait(stalled("InvalidCode"))
    assert f"Secret {EXCLUDED_SECRET} holds credentials of the operator" in condition(body, "Ready")["message"]
    assert sovereign.ledger.promo(password) == ()
    redemption = api.redeem(codeFrom=source(EXCLUDED_SECRET, "password"))
    assert redemption.result() == ("Rejected", "VoucherNotFound")


def test_blanks_and_case_of_the_secret_are_ignored(sovereign: Sovereign) -> None:
    """As `kubectl create secret --from-file` leaves a line feed; a change of these alone is no change."""
    api, secret, code = sovereign.api, unique("padded"), unique("PADDED").upper()
    api.secret(secret, code=f"  {code.lower()}\n")
    voucher = api.voucher(codeFrom=source(secret))
    voucher.wait(ready("Issued"))
    assert sovereign.ledger.promo(code)[4] is False
    version = voucher.body()["metadata"]["resourceVersion"]
    api.secret(secret, code=code)
    wait_for_full_passes(api, sovereign.ledger, 3)
    assert voucher.body()["metadata"]["resourceVersion"] == version
    assert api.redeem(codeFrom=source(secret)).result() == GRANTED


def test_changed_secret_stalls_and_keeps_the_issued_code(sovereign: Sovereign) -> None:
    """The issued code stays valid, the other one is never issued; with the Secret restored the Voucher is Ready."""
    api = sovereign.api
    voucher, secret, code = issued(api)
    other = unique("OTHER").upper()
    api.secret(secret, code=other)
    body = voucher.wait(stalled("CodeChanged"))
    assert (kstatus(body), body["status"]["state"]) == ("Failed", "Active")
    voucher.wait_event("CodeChanged")
    assert sovereign.ledger.promo(other) == ()
    assert api.redeem(other).result() == ("Rejected", "VoucherNotFound")
    assert api.redeem(code).result() == GRANTED
    api.secret(secret, code=code)
    voucher.wait(ready("Issued"))
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)
    assert "Stalled" not in str(voucher.body()["status"])


def test_reference_may_change_to_a_secret_with_the_same_code(sovereign: Sovereign) -> None:
    """As kustomize does, which appends a hash to the names of the Secrets that it generates."""
    api = sovereign.api
    voucher, _, code = issued(api)
    same, other = unique("same"), unique("other")
    api.secret(same, code=f"{code.lower()}\n")
    api.secret(other, code=unique("OTHER").upper())
    voucher.edit(codeFrom=source(other))
    voucher.wait(stalled("CodeChanged"))
    voucher.edit(codeFrom=source(same))
    voucher.wait(ready("Issued"))
    assert api.redeem(code).result() == GRANTED


def test_deleted_secret_keeps_the_issued_code(sovereign: Sovereign) -> None:
    """The code stays valid; the Voucher says that its Secret is missing."""
    api = sovereign.api
    voucher, secret, code = issued(api)
    api.delete_secret(secret)
    body = voucher.wait(waiting("SecretNotFound"))
    assert (condition(body, "Redeemable")["status"], body["status"]["state"]) == ("Unknown", "Active")
    assert api.redeem(code).result() == GRANTED
    api.secret(secret, code=code)
    voucher.wait(ready("Issued"))


def test_deleting_the_voucher_needs_no_secret(sovereign: Sovereign) -> None:
    api = sovereign.api
    voucher, secret, code = issued(api)
    api.delete_secret(secret)
    voucher.delete()
    voucher.wait_gone()
    assert sovereign.ledger.promo(code)[4] is True


def test_second_voucher_of_one_secret_is_a_conflict(sovereign: Sovereign) -> None:
    """The newer one learns whose the code is, not what it is."""
    api = sovereign.api
    secret, code = unique("shared"), unique("SHARED").upper()
    api.secret(secret, code=code)
    older = api.voucher(unique("a-first"), codeFrom=source(secret))
    older.wait(ready("Issued"))
    newer = api.voucher(unique("b-second"), codeFrom=source(secret))
    body = newer.wait(stalled("CodeConflict"))
    assert older.name in condition(body, "Ready")["message"]
    assert code not in str(body["status"])


def test_redemption_waits_for_its_secret(sovereign: Sovereign) -> None:
    """It waits for the Secret, and for the key in it, however long; a shop's own Secret will do."""
    api, secret = sovereign.api, unique("shop")
    voucher = api.voucher()
    voucher.wait(state("Active"))
    redemption = api.redeem(codeFrom=source(secret))
    redemption.wait(waiting("SecretNotFound"))
    api.secret(secret, other="irrelevant")
    redemption.wait(lambda body: "has no key" in condition(body, "Ready")["message"])
    api.secret(secret, code=f"{voucher.code.lower()}\n")
    assert redemption.result() == GRANTED
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)


def test_voucher_reference_redeems_a_secret_code(sovereign: Sovereign) -> None:
    """The creator of the Redemption need not know the code."""
    voucher, _, code = issued(sovereign.api)
    assert sovereign.api.redeem(voucherRef={"name": voucher.name}).result() == GRANTED
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)
    assert sovereign.ledger.promo(code)[3] == 1

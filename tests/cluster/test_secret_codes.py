"""A code in a Secret: it may come late, be wrong, change or go; the code that was issued stays what it is."""

import pytest

from tests.cluster.conftest import Sovereign
from tests.cluster.resources import (
    CLOSED_SECRET,
    Made,
    Object,
    Shop,
    condition,
    let_pass,
    ready,
    stalled,
    state,
    unique,
    waiting,
)
from voucher_operator.resources.conditions import kstatus

GRANTED = ("Redeemed", "Redeemed")


def source(name: str, key: str = "code") -> Object:
    """Return a `codeFrom`."""
    return {"secretKeyRef": {"name": name, "key": key}}


def issued(shop: Shop) -> tuple[Made, str, str]:
    """Return a Voucher that is in the ledger, the name of its Secret, and its code."""
    secret, code = unique("partners"), unique("PARTNER").upper()
    shop.secret(secret, code=code)
    voucher = shop.voucher(codeFrom=source(secret))
    voucher.wait(ready("Issued"))
    return voucher, secret, code


def test_secret_comes_later(sovereign: Sovereign) -> None:
    shop, secret, code = sovereign.shop, unique("late"), unique("LATE").upper()
    voucher = shop.voucher(codeFrom=source(secret))
    body = voucher.wait(waiting("SecretNotFound"))
    assert condition(body, "Ready")["message"] == f"Secret {secret} does not exist: create it with the key code."
    assert (body["status"]["state"], kstatus(body)) == ("Pending", "InProgress")
    shop.secret(secret, other="irrelevant")
    missing = f"Secret {secret} has no key code: add it."
    voucher.wait(lambda body: condition(body, "Ready")["message"] == missing)
    shop.secret(secret, code=code, other="irrelevant")
    assert kstatus(voucher.wait(ready("Issued"))) == "Current"
    assert sovereign.books.promo(code) == (10000, True, 0, 0, False)
    assert shop.redeem(code).result() == GRANTED


@pytest.mark.parametrize("text", ["no code!", "Q7", "", "X" * 65, "TAB\tBED", "ÄÖÜ"], ids=range(6))
def test_malformed_then_fixed(sovereign: Sovereign, text: str) -> None:
    shop, secret, code = sovereign.shop, unique("bad"), unique("FIXED").upper()
    shop.secret(secret, code=text)
    voucher = shop.voucher(codeFrom=source(secret))
    body = voucher.wait(stalled("InvalidCode"))
    assert kstatus(body) == "Failed"
    assert not text or text not in str(body["status"])
    shop.secret(secret, code=code)
    voucher.wait(ready("Issued"))
    assert shop.redeem(code).result() == GRANTED


def test_database_credentials_become_no_code(sovereign: Sovereign) -> None:
    """A password may look like a code; who writes Vouchers could otherwise have it issued."""
    shop, password = sovereign.shop, unique("PASSWORD").upper()
    shop.secret(CLOSED_SECRET, password=password)
    voucher = shop.voucher(codeFrom=source(CLOSED_SECRET, "password"))
    body = voucher.wait(stalled("InvalidCode"))
    assert f"Secret {CLOSED_SECRET} holds credentials of the operator" in condition(body, "Ready")["message"]
    assert sovereign.books.promo(password) == ()
    redemption = shop.redeem(codeFrom=source(CLOSED_SECRET, "password"))
    assert redemption.result() == ("Rejected", "VoucherNotFound")


def test_blanks_around_it_and_its_case_do_not_count(sovereign: Sovereign) -> None:
    """As `kubectl create secret --from-file` leaves a line feed; a change of these alone is no change."""
    shop, secret, code = sovereign.shop, unique("padded"), unique("PADDED").upper()
    shop.secret(secret, code=f"  {code.lower()}\n")
    voucher = shop.voucher(codeFrom=source(secret))
    voucher.wait(ready("Issued"))
    assert sovereign.books.promo(code)[4] is False
    version = voucher.body()["metadata"]["resourceVersion"]
    shop.secret(secret, code=code)
    let_pass(shop, sovereign.books, 3)
    assert voucher.body()["metadata"]["resourceVersion"] == version
    assert shop.redeem(codeFrom=source(secret)).result() == GRANTED


def test_changed_after_it_was_issued(sovereign: Sovereign) -> None:
    """The issued code stays valid, the other one never was; put back, all is well again."""
    shop = sovereign.shop
    voucher, secret, code = issued(shop)
    other = unique("OTHER").upper()
    shop.secret(secret, code=other)
    body = voucher.wait(stalled("CodeChanged"))
    assert (kstatus(body), body["status"]["state"]) == ("Failed", "Active")
    voucher.wait_event("CodeChanged")
    assert sovereign.books.promo(other) == ()
    assert shop.redeem(other).result() == ("Rejected", "VoucherNotFound")
    assert shop.redeem(code).result() == GRANTED
    shop.secret(secret, code=code)
    voucher.wait(ready("Issued"))
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)
    assert "Stalled" not in str(voucher.body()["status"])


def test_deleted_after_it_was_issued(sovereign: Sovereign) -> None:
    """The code stays valid; the Voucher says that nobody can see to it now."""
    shop = sovereign.shop
    voucher, secret, code = issued(shop)
    shop.delete_secret(secret)
    body = voucher.wait(waiting("SecretNotFound"))
    assert (condition(body, "Redeemable")["status"], body["status"]["state"]) == ("Unknown", "Active")
    assert shop.redeem(code).result() == GRANTED
    shop.secret(secret, code=code)
    voucher.wait(ready("Issued"))


def test_deleting_the_voucher_needs_no_secret(sovereign: Sovereign) -> None:
    shop = sovereign.shop
    voucher, secret, code = issued(shop)
    shop.delete_secret(secret)
    voucher.delete()
    voucher.wait_gone()
    assert sovereign.books.promo(code)[4] is True


def test_two_vouchers_with_one_secret(sovereign: Sovereign) -> None:
    """The newer one learns whose the code is, not what it is."""
    shop = sovereign.shop
    secret, code = unique("shared"), unique("SHARED").upper()
    shop.secret(secret, code=code)
    older = shop.voucher(unique("a-first"), codeFrom=source(secret))
    older.wait(ready("Issued"))
    newer = shop.voucher(unique("b-second"), codeFrom=source(secret))
    body = newer.wait(stalled("CodeConflict"))
    assert older.name in condition(body, "Ready")["message"]
    assert code not in str(body["status"])


def test_redemption_with_a_code_from_a_secret(sovereign: Sovereign) -> None:
    """It waits for the Secret, and for the key in it, however long; a shop's own Secret will do."""
    shop, secret = sovereign.shop, unique("shop")
    voucher = shop.voucher()
    voucher.wait(state("Active"))
    redemption = shop.redeem(codeFrom=source(secret))
    redemption.wait(waiting("SecretNotFound"))
    shop.secret(secret, other="irrelevant")
    redemption.wait(lambda body: "has no key" in condition(body, "Ready")["message"])
    shop.secret(secret, code=f"{voucher.code.lower()}\n")
    assert redemption.result() == GRANTED
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)


def test_redemption_through_a_voucher_with_a_secret(sovereign: Sovereign) -> None:
    """Whoever redeems need not know the code."""
    voucher, _, code = issued(sovereign.shop)
    assert sovereign.shop.redeem(voucherRef={"name": voucher.name}).result() == GRANTED
    voucher.wait(lambda body: body["status"]["timesRedeemed"] == 1)
    assert sovereign.books.promo(code)[3] == 1

"""Two Vouchers of one namespace with one code: the older one has it, whichever the operator saw first, then the other.

See also: test_voucher_namespaces.py for two namespaces.
"""

from testbed.kstatus import kstatus
from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import wait_for_full_passes
from tests.cluster.resources import condition, ready, stalled, state, status, unique, waiting


def test_older_voucher_keeps_the_code(sovereign: Sovereign) -> None:
    """A tie of the creation times, which are whole seconds, goes by the name: these names are in the same order."""
    api = sovereign.api
    older = api.voucher(unique("a-first"), maxRedemptions=5)
    older.wait(ready("Issued"))
    newer = api.voucher(unique("b-second"), code=older.code, credit={"amount": 99, "currency": "OMR"})
    body = newer.wait(stalled("CodeConflict"))
    assert body["status"]["state"] == "Conflict"
    assert condition(body, "Ready")["message"] == (
        f"The code belongs to the older Voucher {api.namespace}/{older.name}: choose another code, "
        "or delete that Voucher."
    )
    assert (condition(body, "Redeemable")["status"], condition(body, "Redeemable")["reason"]) == ("False", "NotIssued")
    assert kstatus(body) == "Failed"
    newer.wait_event("CodeConflict")
    contested = f"Voucher {newer.name} has the same code and was refused."
    assert older.wait_event("CodeContested")["note"] == contested
    wait_for_full_passes(api, sovereign.ledger, 2)
    assert sovereign.ledger.promo(older.code) == (10000, True, 5, 0, False)
    assert ready("Issued")(older.body())


def test_newer_voucher_takes_over_code_and_counter(sovereign: Sovereign) -> None:
    api = sovereign.api
    older = api.voucher(unique("a-first"))
    older.wait(ready("Issued"))
    newer = api.voucher(unique("b-second"), code=older.code, credit={"amount": 3, "currency": "OMR"})
    newer.wait(stalled("CodeConflict"))
    assert api.redeem(older.code).result() == ("Redeemed", "Redeemed")
    older.delete()
    older.wait_gone()
    newer.wait(status(state="Active", timesRedeemed=1, credit="3.000 OMR", creditGranted="10.000"))
    assert ready("Issued")(newer.body())
    user = unique("user")
    assert api.redeem(newer.code, user=user).result() == ("Redeemed", "Redeemed")
    assert sovereign.ledger.balance(user) == 3000


def test_deleting_the_conflicting_voucher_revokes_nothing(sovereign: Sovereign) -> None:
    api = sovereign.api
    older = api.voucher(unique("a-first"))
    older.wait(ready("Issued"))
    newer = api.voucher(unique("b-second"), code=older.code)
    newer.wait(stalled("CodeConflict"))
    newer.delete()
    newer.wait_gone()
    assert sovereign.ledger.promo(older.code)[1::3] == (True, False)
    assert api.redeem(older.code).result() == ("Redeemed", "Redeemed")


def test_older_voucher_that_is_seen_later_takes_the_code(sovereign: Sovereign) -> None:
    """Its code is in a Secret that comes late; the newer one had been issued, and redeemed, meanwhile."""
    api = sovereign.api
    code, secret = unique("LATE").upper(), unique("late")
    older = api.voucher(unique("a-first"), codeFrom={"secretKeyRef": {"name": secret, "key": "code"}})
    older.wait(waiting("SecretNotFound"))
    newer = api.voucher(unique("b-second"), code=code)
    newer.wait(ready("Issued"))
    assert api.redeem(code).result() == ("Redeemed", "Redeemed")
    api.secret(secret, code=code)
    older.wait(status(state="Active", timesRedeemed=1))
    newer.wait(stalled("CodeConflict"))
    assert older.name in newer.wait_event("CodeConflict")["note"]
    taken = older.wait_event("Issued")["note"]
    assert taken == f"The code can be redeemed on the ledger. It was taken from Voucher {newer.name}, which is newer."
    older.delete()
    older.wait_gone()
    newer.wait(state("Active"))


def test_oldest_waiting_voucher_takes_over(sovereign: Sovereign) -> None:
    api = sovereign.api
    first = api.voucher(unique("a-first"))
    first.wait(ready("Issued"))
    second = api.voucher(unique("b-second"), code=first.code)
    third = api.voucher(unique("c-third"), code=first.code)
    for made in (second, third):
        made.wait(lambda body: stalled("CodeConflict")(body) and first.name in str(body["status"]))
    first.delete()
    first.wait_gone()
    second.wait(ready("Issued"))
    third.wait(lambda body: stalled("CodeConflict")(body) and second.name in str(body["status"]))

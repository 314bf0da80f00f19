"""Orders that are rolled back: whatever fails before the customer can pay, credit and code are as before."""

import pytest

from testbed.kstatus import kstatus
from testbed.scripted_stripe import Fault
from tests.cluster.conftest import Sovereign
from tests.cluster.resources import CustomObject, condition, stalled, unique, until, waiting
from tests.cluster.stripe_fixture import awaiting, conditions_of, order, purchase
from tests.cluster.test_order_paid import issued

CUSTOMERS = "/v1/customers"


def nothing_was_used(sovereign: Sovereign, voucher: CustomObject, user: str) -> bool:
    """Whether the voucher can be redeemed as before, and the customer has what the customer had."""
    return sovereign.ledger.promo(voucher.code)[3] == 0 and sovereign.ledger.balance(user) == 0


def test_order_without_stripe_uses_nothing_and_succeeds_later(sovereign: Sovereign) -> None:
    """A voucher of 10, an order of 30, no Stripe: nothing is consumed; when Stripe's key comes, it can be bought."""
    voucher, user, key = issued(sovereign), unique("user"), sovereign.stripe_fixture.key.read_text()
    sovereign.stripe_fixture.key.write_text("")
    try:
        made = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
        assert made.result() == ("RolledBack", "PaymentProcessorNotConfigured")
    finally:
        sovereign.stripe_fixture.key.write_text(key)
    assert nothing_was_used(sovereign, voucher, user)
    assert purchase(sovereign.ledger, made) == ()
    assert kstatus(made.body()) == "Failed"
    assert conditions_of(made.body()) == {
        kind: ("True" if kind == "Stalled" else "False", "PaymentProcessorNotConfigured")
        for kind in ("Ready", "Stalled", "Redeemed", "OrderPlaced")
    }
    made.wait_event("PaymentProcessorNotConfigured")
    assert voucher.body()["status"]["redeemed"] == "0/1"
    again = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    again.wait(awaiting())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.UNAUTHORIZED, "PaymentRejected"), (Fault.UNAVAILABLE, "PaymentProcessorUnavailable")],
)
def test_failed_checkout_rolls_the_order_back(sovereign: Sovereign, fault: Fault, reason: str) -> None:
    """A key that is refused, at once; a Stripe that is away, after the deadline."""
    sovereign.allow += ["rolling back", "checkout may stay open"]
    voucher, user = issued(sovereign), unique("user")
    sovereign.stripe_fixture.stripe.fail(CUSTOMERS, *[fault] * 500)
    made = sovereign.api.redeem(voucher.code, user=user, order=order("xl", paymentDeadlineSeconds=2))
    assert made.result() == ("RolledBack", reason)
    assert nothing_was_used(sovereign, voucher, user)
    assert purchase(sovereign.ledger, made)[0] == "rolled_back"
    body = made.body()
    assert conditions_of(body)["Redeemed"] == ("False", "RolledBack")
    assert conditions_of(body)["OrderPlaced"] == conditions_of(body)["PaymentSettled"] == ("False", reason)
    assert "credit" not in body["status"]
    assert sovereign.ledger.row("SELECT status FROM orders WHERE id = %s::uuid", body["status"]["orderID"]) == (
        "failed",
    )
    sovereign.stripe_fixture.stripe.clear_faults()
    again = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    again.wait(awaiting())


def test_deleted_order_is_rolled_back(sovereign: Sovereign) -> None:
    """It is rolled back without its Redemption; applied again, the status shows it."""
    voucher, user = issued(sovereign), unique("user")
    sovereign.stripe_fixture.stripe.fail(CUSTOMERS, *[Fault.UNAVAILABLE] * 500)
    made = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    body = made.wait(waiting("PaymentProcessorUnavailable"))
    assert conditions_of(body)["OrderPlaced"] == ("True", "Placed")
    assert sovereign.ledger.promo(voucher.code)[3] == 1
    made.delete()
    until(lambda: purchase(sovereign.ledger, made)[0] == "rolled_back", "end of what nobody asks for")
    assert nothing_was_used(sovereign, voucher, user)
    made.wait_gone()
    sovereign.stripe_fixture.stripe.clear_faults()
    again = sovereign.api.create("redemptions", made.name, made.spec)
    assert again.result() == ("RolledBack", "Abandoned")


def test_invalid_order_is_rejected_and_uses_nothing(sovereign: Sovereign) -> None:
    """Unknown plan or add-on, a code of another currency: each with its reason, and nothing is consumed."""
    voucher, user = issued(sovereign), unique("user")
    for wanted in (order("xxl"), order("m", "moon")):
        made = sovereign.api.redeem(voucher.code, user=user, order=wanted)
        assert made.result() == ("Rejected", "InvalidOrder")
        assert wanted["planID"] in condition(made.body(), "Ready")["message"] or wanted["addons"]
        assert purchase(sovereign.ledger, made) == ()
    foreign = sovereign.api.voucher(credit={"amount": 10, "currency": "USD"})
    foreign.wait(stalled("CurrencyMismatch"))
    for source in ({"code": foreign.code}, {"voucherRef": {"name": foreign.name}}):
        made = sovereign.api.redeem(user=user, order=order("m"), **source)
        assert made.result() == ("Rejected", "CurrencyMismatch")
    assert nothing_was_used(sovereign, voucher, user)


def test_refused_code_rejects_the_order(sovereign: Sovereign) -> None:
    """Not from the balance either, although it would suffice."""
    voucher, user = issued(sovereign), unique("user")
    assert sovereign.api.redeem(voucher.code, user=user).result() == ("Redeemed", "Redeemed")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("m"))
    state, reason = made.result()
    assert state == "Rejected"
    assert reason in ("AlreadyRedeemed", "RedemptionLimitReached")
    assert conditions_of(made.body())["OrderPlaced"] == ("False", reason)
    assert sovereign.ledger.balance(user) == 10000

"""Orders that are paid: by credit, by the balance alone, by credit and card; and given back afterwards."""

from testbed.kstatus import kstatus
from tests.cluster.conftest import Sovereign
from tests.cluster.resources import CustomObject, condition, ready, state, status, unique, until
from tests.cluster.stripe_fixture import awaiting, conditions_of, order, purchase

DELEGATED = ("Unknown", "Delegated")


def issued(sovereign: Sovereign) -> CustomObject:
    """Issue a voucher worth 10 OMR, for one, and wait until it can be redeemed."""
    voucher = sovereign.api.voucher(maxRedemptions=1)
    voucher.wait(ready("Issued"))
    return voucher


def test_order_covered_by_credit_is_completed_without_checkout(sovereign: Sovereign) -> None:
    voucher, user = issued(sovereign), unique("user")
    sessions = sovereign.stripe_fixture.stripe.count("POST /v1/checkout/sessions")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("m", "waf"))
    body = made.wait(status(finished=True))
    assert body["status"]["state"] == "Completed"
    assert conditions_of(body) == {
        "Ready": ("True", "Completed"),
        "Redeemed": ("True", "Redeemed"),
        "OrderPlaced": ("True", "Placed"),
        "PaymentSettled": ("True", "Completed"),
        "OrganizationReady": DELEGATED,
    }
    assert (body["status"]["credit"], "checkoutURL" in body["status"]) == ("10.000 OMR", False)
    shares = "Of 9.000 OMR, 9.000 OMR are paid by credit and 0.000 OMR by card."
    assert condition(body, "OrderPlaced")["message"] == shares
    assert (sovereign.ledger.balance(user), purchase(sovereign.ledger, made)) == (1000, ("completed", 9000, 9000, 0))
    assert sovereign.ledger.row(
        "SELECT status, amount_omr, amount_baisa FROM orders WHERE id = %s::uuid", body["status"]["orderID"]
    ) == ("completed", 9, 9000)
    assert sovereign.ledger.row(
        "SELECT count(*) FROM vouchers.outbox WHERE type = 'order.placed' AND data ->> 'id' = %s",
        body["status"]["orderID"],
    ) == (1,)
    assert sovereign.stripe_fixture.stripe.count("POST /v1/checkout/sessions") == sessions
    made.wait_event("Completed")
    voucher.wait(state("Exhausted"))


def test_balance_pays_an_order_without_code(sovereign: Sovereign) -> None:
    """A Redemption without a code; and one whose voucher does not exist, which must not pay from the balance."""
    voucher, user = issued(sovereign), unique("user")
    assert sovereign.api.redeem(voucher.code, user=user).result() == ("Redeemed", "Redeemed")
    nothing = sovereign.api.redeem(user=user, voucherRef={"name": unique("never")}, order=order("m"))
    assert nothing.result() == ("Rejected", "VoucherNotFound")
    assert sovereign.ledger.balance(user) == 10000
    made = sovereign.api.redeem(user=user, order=order("s", "daily-backup"))
    assert made.result() == ("Completed", "Completed")
    body = made.body()
    assert condition(body, "Redeemed") == {}
    assert "credit" not in body["status"]
    assert sovereign.ledger.balance(user) == 2000


def test_card_payment_completes_and_refund_releases_the_credit(sovereign: Sovereign) -> None:
    """Awaiting payment, paid by webhook, refunded by webhook: each is a step of the status; the last of a finished."""
    voucher, user = issued(sovereign), unique("user")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("xl", "daily-backup"))
    body = made.wait(awaiting())
    session = sovereign.stripe_fixture.session(made)
    assert (session["amount_total"], session["amount_subtotal"]) == (23000, 33000)
    assert session["metadata"]["sovereign"] == sovereign.stripe_fixture.env["VOUCHER_OPERATOR_SOVEREIGN"]
    assert body["status"]["checkoutURL"] == session["url"]
    assert conditions_of(body) == {
        "Ready": ("False", "AwaitingPayment"),
        "Reconciling": ("True", "AwaitingPayment"),
        "Redeemed": ("True", "Redeemed"),
        "OrderPlaced": ("True", "Placed"),
        "PaymentSettled": ("False", "AwaitingPayment"),
    }
    assert kstatus(body) == "InProgress"
    assert sovereign.ledger.balance(user) == 0
    paid = sovereign.stripe_fixture.stripe.pay(session["id"])
    assert sovereign.stripe_fixture.deliver(sovereign.operator, paid) == "applied"
    assert made.result() == ("Completed", "Completed")
    assert "checkoutURL" not in made.body()["status"]
    refund = sovereign.stripe_fixture.stripe.refund(session["id"])
    assert sovereign.stripe_fixture.deliver(sovereign.operator, refund) == "applied"
    body = made.wait(state("Redeemed"))
    assert conditions_of(body)["Ready"] == ("False", "Refunded")
    assert conditions_of(body)["Redeemed"] == ("True", "Redeemed")
    assert body["status"]["finished"]
    assert sovereign.ledger.balance(user) == 10000


def test_lost_dispute_ends_the_order_and_its_subscription(sovereign: Sovereign) -> None:
    """The credit stays spent: what the bank took back is outstanding, and a person settles it."""
    voucher, user = issued(sovereign), unique("user")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    made.wait(awaiting())
    session = sovereign.stripe_fixture.session(made)["id"]
    stripe = sovereign.stripe_fixture.stripe
    assert sovereign.stripe_fixture.deliver(sovereign.operator, stripe.pay(session)) == "applied"
    assert made.result() == ("Completed", "Completed")
    lost = stripe.dispute(session, "lost", "closed")
    assert sovereign.stripe_fixture.deliver(sovereign.operator, lost) == "applied"
    assert conditions_of(made.wait(state("Redeemed")))["Ready"] == ("False", "PaymentLost")
    assert (sovereign.ledger.balance(user), purchase(sovereign.ledger, made)[0]) == (0, "charged_back")
    subscription = stripe.sessions[session]["subscription"]
    until(lambda: stripe.subscriptions[subscription]["status"] == "canceled", "end of the subscription")
    settle = (
        "UPDATE vouchers.payment SET settled_minor = outstanding_minor WHERE session_id = %s RETURNING settled_minor"
    )
    assert sovereign.ledger.row(settle, session) == (20000,)


def test_refunded_second_payment_leaves_the_order_completed(sovereign: Sovereign) -> None:
    """As `verify` asks for it: the order, its credit and its first payment stay as they are."""
    sovereign.allow.append("does not match its order")
    voucher, user = issued(sovereign), unique("user")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    made.wait(awaiting())
    first = sovereign.stripe_fixture.session(made)["id"]
    stripe, second = sovereign.stripe_fixture.stripe, sovereign.stripe_fixture.stripe.second_session(first)["id"]
    assert sovereign.stripe_fixture.deliver(sovereign.operator, stripe.pay(first)) == "applied"
    assert made.result() == ("Completed", "Completed")
    assert sovereign.stripe_fixture.deliver(sovereign.operator, stripe.pay(second)) == "mismatch"
    assert sovereign.stripe_fixture.deliver(sovereign.operator, stripe.refund(second)) == "no_change"
    assert (sovereign.ledger.balance(user), purchase(sovereign.ledger, made)[0]) == (0, "completed")
    assert made.body()["status"]["state"] == "Completed"
    settled = "SELECT array_agg(refunded ORDER BY created_at) FROM vouchers.payment WHERE session_id = ANY (%s)"
    assert sovereign.ledger.row(settled, [first, second]) == ([False, True],)


def test_payment_after_deletion_completes_the_order(sovereign: Sovereign) -> None:
    """The customer has the URL: the order goes on without its Redemption; applied again, it reads what became of it."""
    voucher, user = issued(sovereign), unique("user")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    made.wait(awaiting())
    session = sovereign.stripe_fixture.session(made)
    made.delete()
    made.wait_gone()
    sovereign.stripe_fixture.stripe.pay(session["id"])  # and its webhook is lost: it is looked up
    until(lambda: purchase(sovereign.ledger, made)[0] == "completed", "payment that was looked up")
    again = sovereign.api.create("redemptions", made.name, made.spec)
    assert again.result() == ("Completed", "Completed")
    assert sovereign.ledger.balance(user) == 0


def test_expired_checkout_releases_the_hold_and_keeps_the_redemption(sovereign: Sovereign) -> None:
    """The credit of the code stays; without a code everything is as it was."""
    voucher, user = issued(sovereign), unique("user")
    coded = sovereign.api.redeem(voucher.code, user=user, order=order("xl"))
    bare = sovereign.api.redeem(user=unique("user"), order=order("s"))
    for made in (coded, bare):
        made.wait(awaiting())
        event = sovereign.stripe_fixture.stripe.expire(sovereign.stripe_fixture.session(made)["id"])
        sovereign.stripe_fixture.deliver(sovereign.operator, event)
    assert coded.result() == ("Redeemed", "CheckoutExpired")
    assert conditions_of(coded.body()) == {
        "Ready": ("False", "CheckoutExpired"),
        "Stalled": ("True", "CheckoutExpired"),
        "Redeemed": ("True", "Redeemed"),
        "OrderPlaced": ("False", "CheckoutExpired"),
        "PaymentSettled": ("False", "CheckoutExpired"),
    }
    assert bare.result() == ("RolledBack", "CheckoutExpired")
    assert sovereign.ledger.balance(user) == 10000
    coded.wait_event("CheckoutExpired")


def test_recreated_redemption_cannot_place_another_order(sovereign: Sovereign) -> None:
    """What was placed is bound to its name: the same again reads it, another order is refused."""
    voucher, user = issued(sovereign), unique("user")
    made = sovereign.api.redeem(voucher.code, user=user, order=order("m"))
    assert made.result() == ("Completed", "Completed")
    first = made.body()["status"]["orderID"]
    for plan, outcome in (("m", ("Completed", "Completed")), ("s", ("Rejected", "IdempotencyConflict"))):
        made.delete()
        made.wait_gone()
        made = sovereign.api.redeem(voucher.code, user=user, name=made.name, order=order(plan))
        assert made.result() == outcome
        assert made.body()["status"].get("orderID") == (first if plan == "m" else None)
    assert sovereign.ledger.balance(user) == 1000

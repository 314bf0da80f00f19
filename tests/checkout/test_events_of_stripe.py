"""What is read from an event of Stripe: never more than it says, and never an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voucher_operator.checkout.events_of_stripe import looked_up, payment_event, refunded_intent
from voucher_operator.ledger.purchase_types import PaymentEffect

TYPES = (
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_failed",
    "charge.refunded",
    "invoice.paid",
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("id", "metadata", "payment_status", "status", "currency", "amount_total", "subscription", "payment_intent")


def event(kind: str = "checkout.session.completed", **fields: Any) -> dict[str, Any]:
    session = {
        "id": "cs_1",
        "payment_status": "paid",
        "status": "complete",
        "amount_total": 9_000,
        "currency": "omr",
        "subscription": "sub_1",
        "metadata": {"order_id": "o-1", "sovereign": "here"},
    }
    return {"id": "evt_1", "type": kind, "data": {"object": {**session, **fields}}}


def test_everything_that_a_session_says() -> None:
    read = payment_event(event(), b"raw", "OMR")
    assert (read.event_id, read.type, read.raw) == ("evt_1", "checkout.session.completed", b"raw")
    assert (read.session_id, read.order_id, read.subscription_id) == ("cs_1", "o-1", "sub_1")
    assert (read.effect, read.amount_minor, read.sovereign) == (PaymentEffect.PAID, 9_000, "here")


@pytest.mark.parametrize(
    ("kind", "status", "effect"),
    [
        ("completed", "paid", PaymentEffect.PAID),
        ("completed", "no_payment_required", PaymentEffect.PAID),
        ("completed", "unpaid", PaymentEffect.PROCESSING),
        ("async_payment_succeeded", "paid", PaymentEffect.PAID),
        ("async_payment_failed", "unpaid", PaymentEffect.FAILED),
        ("expired", "unpaid", PaymentEffect.EXPIRED),
        ("invented", "paid", PaymentEffect.NONE),
    ],
)
def test_effects(kind: str, status: str, effect: PaymentEffect) -> None:
    read = payment_event(event(f"checkout.session.{kind}", payment_status=status), b"", "OMR")
    assert read.effect is effect
    assert (read.amount_minor is None) is (effect is not PaymentEffect.PAID)


@pytest.mark.parametrize("fields", [{"currency": "usd"}, {"amount_total": None}, {"amount_total": "9000"}])
def test_money_that_cannot_be_what_is_due(fields: dict[str, Any]) -> None:
    assert payment_event(event(**fields), b"", "OMR").amount_minor == -1


def test_an_object_may_be_shown_in_full() -> None:
    assert payment_event(event(subscription={"id": "sub_2"}), b"", "OMR").subscription_id == "sub_2"


@pytest.mark.parametrize(
    ("status", "payment", "effect"),
    [
        ("open", "unpaid", PaymentEffect.NONE),
        ("complete", "paid", PaymentEffect.PAID),
        ("complete", "unpaid", PaymentEffect.PROCESSING),
        ("expired", "unpaid", PaymentEffect.EXPIRED),
    ],
)
def test_a_look_names_its_finding(status: str, payment: str, effect: PaymentEffect) -> None:
    session = event(status=status, payment_status=payment)["data"]["object"]
    read = looked_up(session, b"", "OMR")
    assert (read.effect, read.event_id) == (effect, f"lookup:cs_1:{status}:{payment}")


def test_only_a_full_refund_of_a_payment_is_asked_about() -> None:
    refund = {"type": "charge.refunded", "data": {"object": {"refunded": True, "payment_intent": "pi_1"}}}
    assert refunded_intent(refund) == "pi_1"
    refund["data"]["object"]["refunded"] = False  # type: ignore[index]
    assert refunded_intent(refund) is None
    assert refunded_intent(event()) is None


def test_an_event_without_an_id_gets_one_from_its_bytes() -> None:
    assert payment_event({}, b"a", "OMR").event_id != payment_event({}, b"b", "OMR").event_id


@given(kind=st.sampled_from(TYPES), thing=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_nothing_that_is_json_is_an_error(kind: str, thing: Any) -> None:
    odd = {"type": kind, "data": {"object": thing}}
    assert payment_event(odd, b"", "OMR").type == kind
    refunded_intent(odd)
    if isinstance(thing, dict):
        looked_up(thing, b"", "OMR")

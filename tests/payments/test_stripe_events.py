"""What is read from an event of Stripe: never more than it says, and never an error."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voucher_operator.ledger.purchase.types import Payment, PaymentEffect
from voucher_operator.payments.stripe_events import (
    dispute,
    intent_of,
    is_failed_refund,
    looked_up,
    payment_event,
    refund,
    refunded_charge,
)

TYPES = (
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_failed",
    "charge.refunded",
    "refund.failed",
    "charge.dispute.created",
    "invoice.paid",
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "id",
    "metadata",
    "payment_status",
    "status",
    "currency",
    "amount_total",
    "subscription",
    "payment_intent",
    "object",
    "refunded",
    "amount",
)


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


def test_session_event_fields_are_read() -> None:
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
def test_event_type_and_payment_status_decide_the_effect(kind: str, status: str, effect: PaymentEffect) -> None:
    read = payment_event(event(f"checkout.session.{kind}", payment_status=status), b"", "OMR")
    assert read.effect is effect
    assert (read.amount_minor is None) is (effect is not PaymentEffect.PAID)


@pytest.mark.parametrize("fields", [{"currency": "usd"}, {"amount_total": None}, {"amount_total": "9000"}])
def test_amount_in_another_currency_or_form_never_matches(fields: dict[str, Any]) -> None:
    assert payment_event(event(**fields), b"", "OMR").amount_minor == -1


def test_expanded_object_is_read_by_its_id() -> None:
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
def test_lookup_event_id_contains_the_session_status(status: str, payment: str, effect: PaymentEffect) -> None:
    session = event(status=status, payment_status=payment)["data"]["object"]
    read = looked_up(session, b"", "OMR")
    assert (read.effect, read.event_id) == (effect, f"lookup:cs_1:{status}:{payment}")


@pytest.mark.parametrize(
    "kind",
    ["charge.refunded", "charge.refund.updated", "refund.created", "refund.failed", "charge.dispute.funds_withdrawn"],
)
def test_refund_and_dispute_events_name_their_payment_intent(kind: str) -> None:
    sent = {"type": kind, "data": {"object": {"payment_intent": "pi_1"}}}
    assert intent_of(sent) == "pi_1"
    assert payment_event(sent, b"", "OMR").effect is PaymentEffect.NONE
    assert intent_of({**sent, "type": "charge.succeeded"}) is None
    assert intent_of(event()) is None


@pytest.mark.parametrize(("status", "failed"), [("failed", True), ("canceled", True), ("succeeded", False)])
def test_failed_refund_is_recognised(status: str, failed: bool) -> None:
    sent = {"type": "refund.updated", "data": {"object": {"object": "refund", "status": status}}}
    assert is_failed_refund(sent) is failed


def test_session_event_names_its_invoice() -> None:
    read = payment_event(event(invoice="in_1"), b"", "OMR")
    assert read.payment is not None
    assert read.payment.invoice_id == "in_1"


def test_event_without_id_gets_one_from_its_body() -> None:
    assert payment_event({}, b"a", "OMR").event_id != payment_event({}, b"b", "OMR").event_id


@given(kind=st.sampled_from(TYPES), thing=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_any_json_body_is_read_without_error(kind: str, thing: Any) -> None:
    odd = {"type": kind, "data": {"object": thing}}
    assert payment_event(odd, b"", "OMR").type == kind
    intent_of(odd)
    is_failed_refund(odd)
    bound = replace(payment_event(odd, b"", "OMR"), payment=Payment())
    refund(bound, refunded_charge(odd, "pi_1"), None, "OMR")
    dispute(bound, odd, "OMR")
    if isinstance(thing, dict):
        looked_up(thing, b"", "OMR")

"""Translates events and checkout sessions of Stripe into PaymentEvents: pure functions, no I/O.

An event that is not understood has no effect, but is stored in the ledger. See also: `payment_reader` reads what an
event does not contain; `purchase_saga` looks sessions up.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from voucher_operator.ledger.purchase.types import Dispute, Payment, PaymentEffect, PaymentEvent
from voucher_operator.payments.currency import rules
from voucher_operator.payments.stripe_requests import FirstPayment, InvoiceMoney

_SETTLED: Final = frozenset({"paid", "no_payment_required"})
_FOREIGN_CURRENCY: Final = -1
"""An amount that equals no amount due: in another currency than the ledger's, or in an unknown one."""
_REFUNDED: Final = "charge.refunded"
_DISPUTE: Final = "charge.dispute."
_OF_MONEY: Final = (_REFUNDED, "charge.refund.", "refund.", _DISPUTE)
"""Prefixes of the types of events about an existing payment. Each has a payment intent."""
_RETURNED: Final = ("failed", "canceled")
"""States of a refund whose money came back to the account at Stripe."""
_LONGEST: Final = 255
"""Maximum length of an id at Stripe; domain names are not longer."""


def payment_event(event: Mapping[str, Any], raw: bytes, currency: str) -> PaymentEvent:
    """Read a verified webhook event; `raw` are its bytes, `currency` is the ledger's.

    Refunds and disputes have a charge, which has no order id: their effect is NONE here; `payment_reader` looks it up.
    """
    kind, event_id = _names(event, raw)
    data = event.get("data")
    thing = data.get("object") if isinstance(data, Mapping) else None
    if not isinstance(thing, Mapping) or not kind.startswith("checkout.session."):
        return PaymentEvent(event_id=event_id, type=kind, effect=PaymentEffect.NONE, raw=raw)
    return session_event(thing, _effect(kind, thing), event_id, kind, raw, currency)


def foreign_event(event: Mapping[str, Any], raw: bytes, *, live: bool | None) -> PaymentEvent | None:
    """Read an event of another mode, or of a connected account, whose ids mean nothing here; None for one of ours.

    `live` is the mode of our key; None when it does not say. No test payment completes an order of the live mode.
    """
    mode = event.get("livemode")
    other_mode = live is not None and isinstance(mode, bool) and mode is not live
    if not other_mode and event.get("account") is None:
        return None
    kind, event_id = _names(event, raw)
    return PaymentEvent(event_id=event_id, type=kind, effect=PaymentEffect.NONE, raw=raw, foreign=True)


def _names(event: Mapping[str, Any], raw: bytes) -> tuple[str, str]:
    """Return type and id of an event."""
    return _text(event, "type") or "unknown", _text(event, "id") or f"sha256:{hashlib.sha256(raw).hexdigest()}"


def looked_up(session: Mapping[str, Any], raw: bytes, currency: str) -> PaymentEvent:
    """Read a session as it is now; the event id contains only its state, so it may repeat.

    The Sovereign is not read: it may have had another name when the session was created.
    """
    session_id, status, payment = (_text(session, name) or "" for name in ("id", "status", "payment_status"))
    effect = PaymentEffect.NONE
    if status == "complete":
        effect = PaymentEffect.PAID if payment in _SETTLED else PaymentEffect.PROCESSING
    elif status == "expired":
        effect = PaymentEffect.EXPIRED
    event_id = f"lookup:{session_id}:{status}:{payment}"
    return replace(session_event(session, effect, event_id, "lookup", raw, currency), sovereign=None, lookup=True)


def with_details(found: PaymentEvent, money: InvoiceMoney, seen_at: datetime, currency: str) -> PaymentEvent:
    """Add the state of the payment to a session that is PAID or PROCESSING: it may be REFUNDED or FAILED."""
    found = replace(found, payment=_payment(found.payment or Payment(), money, seen_at, currency))
    if money.refunded:
        effect = PaymentEffect.REFUNDED
    elif money.failed and found.effect is PaymentEffect.PROCESSING:
        effect = PaymentEffect.FAILED
    else:
        return found
    event_id = f"lookup:{found.session_id}:{effect}" if found.lookup else found.event_id
    return replace(found, event_id=event_id, effect=effect, amount_minor=None)


def intent_of(event: Mapping[str, Any]) -> str | None:
    """Return the payment intent that was refunded or disputed; None for other events."""
    thing = _of_money(event)
    return None if thing is None else _reference(thing, "payment_intent")


def is_dispute(event: Mapping[str, Any]) -> bool:
    """Whether an event is about a dispute."""
    return (_text(event, "type") or "").startswith(_DISPUTE)


def is_failed_refund(event: Mapping[str, Any]) -> bool:
    """Whether an event is about a refund that did not reach the customer."""
    thing = _of_money(event)
    return thing is not None and thing.get("object") == "refund" and thing.get("status") in _RETURNED


def of_payment(read: PaymentEvent, intent: str, first: FirstPayment, session_id: str | None) -> PaymentEvent:
    """Add the payment to an event about a refund or a dispute."""
    return replace(
        read,
        order_id=first.order_id,
        sovereign=first.sovereign,
        session_id=session_id,
        subscription_id=first.subscription_id,
        payment=Payment(payment_intent=intent, invoice_id=first.invoice_id),
    )


def refund(bound: PaymentEvent, money: InvoiceMoney, seen_at: datetime | None, currency: str) -> PaymentEvent:
    """Add the refunded amount; `seen_at` is None for an amount that comes from the event itself."""
    effect = PaymentEffect.REFUNDED if money.refunded else PaymentEffect.PARTLY_REFUNDED
    return replace(bound, effect=effect, payment=_payment(bound.payment or Payment(), money, seen_at, currency))


def refunded_charge(event: Mapping[str, Any], intent: str) -> InvoiceMoney:
    """Read the refunded amount from the event itself; nothing, when it has no charge."""
    charge = _of_money(event) if _text(event, "type") == _REFUNDED else None
    if charge is None:
        return InvoiceMoney()
    amount, refunded = (charge.get(name) for name in ("amount", "amount_refunded"))
    return InvoiceMoney(
        payment_intent=intent,
        charge_id=_text(charge, "id"),
        currency=_text(charge, "currency") or "",
        amount=amount if _is_amount(amount) else 0,
        amount_refunded=refunded if _is_amount(refunded) else 0,
        refunded=charge.get("refunded") is True,
    )


def dispute(bound: PaymentEvent, event: Mapping[str, Any], currency: str) -> PaymentEvent:
    """Add the state of a dispute; one without an id or a status is stored without effect."""
    thing = _of_money(event) or {}
    dispute_id, status = _text(thing, "id"), _text(thing, "status")
    if dispute_id is None or status is None:
        return bound
    amount = _amount(thing, "amount", currency)
    found = Dispute(
        dispute_id=dispute_id,
        status=status,
        event_at=_created(event),
        amount_minor=None if amount == _FOREIGN_CURRENCY else amount,
        reason=_text(thing, "reason"),
        charge_id=_reference(thing, "charge"),
        opened=bound.type == f"{_DISPUTE}created",
    )
    return replace(bound, effect=PaymentEffect.DISPUTED, dispute=found)


def session_event(
    session: Mapping[str, Any], effect: PaymentEffect, event_id: str, kind: str, raw: bytes, currency: str
) -> PaymentEvent:
    """Read the fields that every checkout session has. The operator only creates sessions of subscriptions."""
    paid = effect is PaymentEffect.PAID
    of_money = paid or effect is PaymentEffect.PROCESSING
    metadata = session.get("metadata")
    labels = metadata if isinstance(metadata, Mapping) else {}
    return PaymentEvent(
        event_id=event_id,
        type=kind,
        effect=effect,
        raw=raw,
        session_id=_text(session, "id"),
        order_id=_text(labels, "order_id"),
        subscription_id=_reference(session, "subscription"),
        amount_minor=_amount(session, "amount_total", currency) if paid else None,
        sovereign=_text(labels, "sovereign"),
        payment=Payment(invoice_id=_reference(session, "invoice")) if of_money else None,
    )


def _effect(kind: str, session: Mapping[str, Any]) -> PaymentEffect:
    match kind:
        case "checkout.session.completed":
            settled = _text(session, "payment_status") in _SETTLED
            return PaymentEffect.PAID if settled else PaymentEffect.PROCESSING
        case "checkout.session.async_payment_succeeded":
            return PaymentEffect.PAID
        case "checkout.session.async_payment_failed":
            return PaymentEffect.FAILED
        case "checkout.session.expired":
            return PaymentEffect.EXPIRED
        case _:
            return PaymentEffect.NONE


def _payment(known: Payment, money: InvoiceMoney, seen_at: datetime | None, currency: str) -> Payment:
    """Add the state of the money to a payment; unchanged while nothing was paid."""
    if money.payment_intent is None:
        return known
    comparable = money.currency.upper() == currency
    convert = rules(currency).from_stripe
    return replace(
        known,
        payment_intent=money.payment_intent,
        charge_id=money.charge_id,
        amount_minor=convert(money.amount) if comparable else None,
        refunded_minor=convert(money.amount_refunded) if comparable else None,
        seen_at=seen_at,
    )


def _of_money(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the charge, refund or dispute of an event; None for other events."""
    data = event.get("data")
    thing = data.get("object") if isinstance(data, Mapping) else None
    found = isinstance(thing, Mapping) and (_text(event, "type") or "").startswith(_OF_MONEY)
    return thing if found else None


def _created(event: Mapping[str, Any]) -> datetime:
    """Return Stripe's time of an event; 1970 when it has none."""
    try:
        return datetime.fromtimestamp(event["created"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _amount(thing: Mapping[str, Any], name: str, currency: str) -> int:
    amount = thing.get(name)
    if not _is_amount(amount):
        return _FOREIGN_CURRENCY
    if (_text(thing, "currency") or "").upper() != currency:
        return _FOREIGN_CURRENCY
    return rules(currency).from_stripe(amount)


def _is_amount(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(thing: Mapping[str, Any], name: str) -> str | None:
    """Return a name or an id; None for a value that cannot be one. It stays in the raw bytes."""
    value = thing.get(name)
    sound = isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()
    return str(value) if sound else None


def _reference(thing: Mapping[str, Any], name: str) -> str | None:
    """Return the id of another object, which Stripe returns as an id or expanded."""
    value = thing.get(name)
    return _text(value, "id") if isinstance(value, Mapping) else _text(thing, name)

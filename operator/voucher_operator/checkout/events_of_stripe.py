"""What an event or a checkout session of Stripe means for a purchase: pure functions, no I/O.

Neighbours: `saga` uses them for sessions that it has looked up, and for events whose order only Stripe can name; the
webhook for everything else. What is not understood has no effect, and is kept by the ledger all the same.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from voucher_operator.checkout.currency import rules
from voucher_operator.ledger.purchase_types import PaymentEffect, PaymentEvent

_SETTLED: Final = frozenset({"paid", "no_payment_required"})
_NOT_OURS: Final = -1
"""An amount that is nobody's due: of another currency than the ledger's, or of one that does not exist."""
_REFUND: Final = "charge.refunded"
_LONGEST: Final = 255
"""Characters of an id at Stripe, at most; names of domains are no longer."""


def payment_event(event: Mapping[str, Any], raw: bytes, currency: str) -> PaymentEvent:
    """Read a verified webhook event; `raw` are its bytes, `currency` is the ledger's.

    A refund is told of a charge, which names no order: its effect is NONE here; `Checkout.payment_event` asks Stripe.
    """
    kind = _text(event, "type") or "unknown"
    event_id = _text(event, "id") or f"sha256:{hashlib.sha256(raw).hexdigest()}"
    data = event.get("data")
    thing = data.get("object") if isinstance(data, Mapping) else None
    if not isinstance(thing, Mapping) or not kind.startswith("checkout.session."):
        return PaymentEvent(event_id=event_id, type=kind, effect=PaymentEffect.NONE, raw=raw)
    return session_event(thing, _effect(kind, thing), event_id, kind, raw, currency)


def looked_up(session: Mapping[str, Any], raw: bytes, currency: str) -> PaymentEvent:
    """Read a session of ours as Stripe shows it now; the id says no more than its state, and may come again.

    It names no Sovereign: ours may have had another name when the session was made.
    """
    session_id, status, payment = (_text(session, name) or "" for name in ("id", "status", "payment_status"))
    effect = PaymentEffect.NONE
    if status == "complete":
        effect = PaymentEffect.PAID if payment in _SETTLED else PaymentEffect.PROCESSING
    elif status == "expired":
        effect = PaymentEffect.EXPIRED
    event_id = f"lookup:{session_id}:{status}:{payment}"
    return replace(session_event(session, effect, event_id, "lookup", raw, currency), sovereign=None, looked=True)


def looked_closer(found: PaymentEvent, became: PaymentEffect) -> PaymentEvent:
    """Say what became of the payment of a session that a look-up found PAID or PROCESSING: REFUNDED, or FAILED."""
    if became is not PaymentEffect.REFUNDED and (found.effect, became) != (
        PaymentEffect.PROCESSING,
        PaymentEffect.FAILED,
    ):
        return found
    return replace(found, event_id=f"lookup:{found.session_id}:{became}", effect=became, amount_minor=None)


def refunded_intent(event: Mapping[str, Any]) -> str | None:
    """Return the id of the payment that an event says was refunded in full; None for all else, partial refunds too."""
    data = event.get("data")
    charge = data.get("object") if isinstance(data, Mapping) else None
    if _text(event, "type") != _REFUND or not isinstance(charge, Mapping) or charge.get("refunded") is not True:
        return None
    return _reference(charge, "payment_intent")


def refund(event: PaymentEvent, order_id: str, sovereign: str | None) -> PaymentEvent:
    """Say which order a full refund is of."""
    return replace(event, effect=PaymentEffect.REFUNDED, order_id=order_id, sovereign=sovereign)


def session_event(
    session: Mapping[str, Any], effect: PaymentEffect, event_id: str, kind: str, raw: bytes, currency: str
) -> PaymentEvent:
    """Read what every checkout session says of its purchase. Only sessions of subscriptions are ours."""
    paid = effect is PaymentEffect.PAID
    metadata = session.get("metadata")
    said = metadata if isinstance(metadata, Mapping) else {}
    return PaymentEvent(
        event_id=event_id,
        type=kind,
        effect=effect,
        raw=raw,
        session_id=_text(session, "id"),
        order_id=_text(said, "order_id"),
        subscription_id=_reference(session, "subscription"),
        amount_minor=_amount(session, currency) if paid else None,
        sovereign=_text(said, "sovereign"),
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


def _amount(session: Mapping[str, Any], currency: str) -> int:
    amount = session.get("amount_total")
    if isinstance(amount, bool) or not isinstance(amount, int):
        return _NOT_OURS
    if (_text(session, "currency") or "").upper() != currency:
        return _NOT_OURS
    return rules(currency).from_stripe(amount)


def _text(thing: Mapping[str, Any], name: str) -> str | None:
    """Return a name or an id; None for what cannot be one. PostgreSQL could not store it, and the raw bytes have it."""
    value = thing.get(name)
    sound = isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()
    return str(value) if sound else None


def _reference(thing: Mapping[str, Any], name: str) -> str | None:
    """Return the id of another object, which Stripe shows as such or in full."""
    value = thing.get(name)
    return _text(value, "id") if isinstance(value, Mapping) else _text(thing, name)

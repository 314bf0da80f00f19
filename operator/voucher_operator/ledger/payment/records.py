"""Which money was paid for which order, and what became of it: `vouchers.payment` and `vouchers.dispute`.

A row is written in the transaction that keeps the event which tells of it, under the lock of its purchase. It says what
the payment processor says; what that means for the purchase is decided elsewhere. See also: `payments`, which decides;
`sql/verify_payments.sql`, which compares both.
"""

from typing import Final

from voucher_operator.ledger.pool import Connection
from voucher_operator.ledger.purchase.types import Dispute, Payment, PaymentEffect, PaymentEvent
from voucher_operator.ledger.statements import statement

_RECORD: Final = statement("payment_record")
_DISPUTE: Final = statement("payment_dispute")
_SESSION: Final = statement("payment_session")
_OF_MONEY: Final = frozenset(
    {PaymentEffect.PAID, PaymentEffect.REFUNDED, PaymentEffect.PARTLY_REFUNDED, PaymentEffect.DISPUTED}
)
_SAYS_NOTHING: Final = Payment()


async def session_of(conn: Connection, event: PaymentEvent) -> str | None:
    """Return the checkout session of the payment that an event names; None while no payment of that name is known.

    Raises psycopg's errors.
    """
    payment = event.payment or _SAYS_NOTHING
    if event.session_id is not None or payment.payment_intent is None:
        return event.session_id
    row = await (await conn.execute(_SESSION, {"intent": payment.payment_intent})).fetchone()
    return str(row[0]) if row else None


async def record(conn: Connection, event: PaymentEvent, order_id: str) -> bool:
    """Record what an event says of a payment for an order; return whether that payment is refunded in full.

    False for an event that names no checkout, or says nothing of money. Raises psycopg's errors.
    """
    if event.session_id is None or event.effect not in _OF_MONEY:
        return False
    row = await (await conn.execute(_RECORD, _said(event, order_id))).fetchone()
    if event.dispute is not None:
        await conn.execute(_DISPUTE, _disputed(event, event.dispute))
    return bool(row and row[0])


def _said(event: PaymentEvent, order_id: str) -> dict[str, object]:
    payment = event.payment or _SAYS_NOTHING
    paid = event.amount_minor if payment.amount_minor is None else payment.amount_minor
    return {
        "session": event.session_id,
        "order": order_id,
        "intent": payment.payment_intent,
        "charge": payment.charge_id,
        "invoice": payment.invoice_id,
        "subscription": event.subscription_id,
        # A negative amount is one of another currency.
        "amount": None if paid is None or paid < 0 else paid,
        "refunded_minor": payment.refunded_minor,
        "refunded": event.effect is PaymentEffect.REFUNDED,
        "seen_at": payment.seen_at,
        "paid": event.effect is PaymentEffect.PAID,
    }


def _disputed(event: PaymentEvent, dispute: Dispute) -> dict[str, object]:
    return {
        "dispute": dispute.dispute_id,
        "session": event.session_id,
        "intent": event.payment and event.payment.payment_intent,
        "charge": dispute.charge_id,
        "amount": dispute.amount_minor,
        "status": dispute.status,
        "reason": dispute.reason,
        "event_at": dispute.event_at,
    }

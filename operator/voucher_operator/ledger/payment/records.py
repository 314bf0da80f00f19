"""Records payments, their refunds and their disputes: `vouchers.payment` and `vouchers.dispute`.

A row is written in the transaction that stores the event about it, under the lock of its purchase. It has what the
payment processor reports; `payments` decides what that means for the purchase. See also: `admin/verify_payments.sql`
compares the two.
"""

from typing import Final

from psycopg.rows import scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_one
from voucher_operator.ledger.purchase.types import Dispute, Payment, PaymentEffect, PaymentEvent
from voucher_operator.ledger.statements import statement

_RECORD: Final = statement("payment_record")
_DISPUTE: Final = statement("payment_dispute")
_SESSION: Final = statement("payment_session")
_OF_MONEY: Final = frozenset(
    {PaymentEffect.PAID, PaymentEffect.REFUNDED, PaymentEffect.PARTLY_REFUNDED, PaymentEffect.DISPUTED}
)
_UNKNOWN: Final = Payment()


async def session_of(conn: Connection, event: PaymentEvent) -> str | None:
    """Return the checkout session of the payment that an event names; None while no payment of that name is known.

    Raises psycopg's errors.
    """
    payment = event.payment or _UNKNOWN
    if event.session_id is not None or payment.payment_intent is None:
        return event.session_id
    found: str | None = await fetch_one(conn, _SESSION, {"intent": payment.payment_intent}, rows=scalar_row)
    return found


async def record(conn: Connection, event: PaymentEvent, order_id: str) -> bool:
    """Record what an event reports about a payment for an order; return whether that payment is refunded in full.

    False for an event that names no checkout session, or is not about money. Raises psycopg's errors.
    """
    if event.session_id is None or event.effect not in _OF_MONEY:
        return False
    refunded = await fetch_one(conn, _RECORD, _payment_values(event, order_id), rows=scalar_row)
    if event.dispute is not None:
        await conn.execute(_DISPUTE, _dispute_values(event, event.dispute))
    return bool(refunded)


def _payment_values(event: PaymentEvent, order_id: str) -> dict[str, object]:
    payment = event.payment or _UNKNOWN
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


def _dispute_values(event: PaymentEvent, dispute: Dispute) -> dict[str, object]:
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

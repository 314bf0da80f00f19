"""Records payments, their refunds and their disputes: `vouchers.payment` and `vouchers.dispute`.

A row is written in the transaction that stores the event about it, under the lock of its purchase. It has what the
payment processor reports; `transitions` decides what that means for the purchase. See also: `admin/verify_payments.sql`
compares the two; `controllers.purchase.disputes` reports the disputes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row, dict_row, scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.purchase.types import Dispute, Payment, PaymentEffect, PaymentEvent
from voucher_operator.ledger.statements import statement
from voucher_operator.resources.keys import Key

_RECORD: Final = statement("payment_record")
_DISPUTE: Final = statement("payment_dispute")
_SESSION: Final = statement("payment_session")
_STANDING: Final = statement("payment_standing")
_UNREPORTED: Final = statement("dispute_unreported")
_REPORTED: Final = statement("dispute_reported")
_UNSETTLED: Final = statement("payment_unsettled")
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


@dataclass(frozen=True, slots=True)
class Standing:
    """How a payment stands, as recorded: refunded in full, or refunded in full before a refund of it failed.

    `lost_minor`: what the lost disputes took that no person has settled; None without one. `disputes_lost`: with the
    settled ones.
    """

    refunded: bool = False
    returned: bool = False
    lost_minor: int | None = None
    disputes_lost: bool = False


@dataclass(frozen=True, slots=True)
class ReportedDispute:
    """A dispute whose status no Event reports yet, with the key of the purchase."""

    dispute_id: str
    key: Key
    status: str


async def record(conn: Connection, event: PaymentEvent, order_id: str, due_minor: int) -> Standing:
    """Record what an event reports about a payment for an order, and return how that payment stands then.

    `due_minor` counts as its amount while that is unknown. Nothing is known of an event that names no checkout
    session, or is not about money. Raises psycopg's errors.
    """
    if event.session_id is None or event.effect not in _OF_MONEY:
        return Standing()
    await conn.execute(_RECORD, _payment_values(event, order_id))
    if event.dispute is not None:
        await conn.execute(_DISPUTE, _dispute_values(event, event.dispute))
    values = {"session": event.session_id, "due": due_minor}
    return await fetch_one(conn, _STANDING, values, rows=class_row(Standing)) or Standing()


async def unreported_disputes(conn: Connection, namespaces: Sequence[str], limit: int) -> list[ReportedDispute]:
    """Read up to `limit` disputes of orders in `namespaces` whose status no Event reports. Raises psycopg's errors."""
    found = await fetch_all(conn, _UNREPORTED, {"namespaces": list(namespaces), "limit": limit}, rows=dict_row)
    return [ReportedDispute(row["dispute_id"], Key(row["key"]), row["status"]) for row in found]


async def record_reported(conn: Connection, reported: Mapping[str, str]) -> None:
    """Record which status of each dispute was reported, by its id. Raises psycopg's errors."""
    values = {"disputes": list(reported), "statuses": list(reported.values())}
    await conn.execute(_REPORTED, values)


async def unsettled(conn: Connection) -> dict[str, int]:
    """Count the payments that need a person, by kind, as `Ledger.unsettled_payments`. Raises psycopg's errors."""
    found = await fetch_all(conn, _UNSETTLED, {}, rows=dict_row)
    return {row["kind"]: row["number"] for row in found}


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

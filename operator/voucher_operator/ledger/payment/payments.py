"""Receives payment events: stores an event and applies its effect on the purchase, in one transaction.

An event is inserted by its id before anything is decided. So a second copy, at the same moment or a year later,
changes nothing. The result of a lookup at Stripe is decided again each time, because what prevented its effect the
last time may no longer exist. All of it is one transaction: a crash can neither lose an event that was acknowledged
nor repeat its effect.

Events may arrive in any order: `transitions` has one entry for each pair of state and effect that changes a purchase.
A purchase changes only for the payment of its own checkout. Another payment of the same order is a mismatch, which
needs a person until it is refunded.

See also: `records` records each payment; `purchases` compensates under the same locks; `locks` has their order.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from psycopg.rows import dict_row, kwargs_row, scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import newer_version
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.payment import records
from voucher_operator.ledger.payment.records import Standing
from voucher_operator.ledger.payment.transitions import Credit, LockedPurchase, Step, decide
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.rows import UNDERSTOOD
from voucher_operator.ledger.purchase.types import (
    PaymentEvent,
    Purchase,
    PurchaseState,
    Received,
)
from voucher_operator.ledger.statements import statement
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

_INSERT_EVENT: Final = statement("payment_event_insert")
_LOCK_EVENT: Final = statement("payment_event_lock")
_FIND: Final = statement("payment_find")
_LOCK_CUSTOMER: Final = statement("customer_lock")
_LOCK: Final = statement("payment_lock")
_SETTLE: Final = statement("payment_settle")
_EVENTS_RESOLVED: Final = statement("payment_events_resolved")
_EVENT_OUTCOME: Final = statement("payment_event_outcome")
_STALE: Final = statement("payment_stale")
_ENDED: Final = statement("payment_ended")
_STATES: Final = frozenset(state.value for state in PurchaseState)
_OUTCOMES: Final = frozenset(outcome.value for outcome in Received)
_OUTBOX_EVENTS: Final[Mapping[Reason | None, str]] = {
    Reason.PAYMENT_LOST: "order.charged_back",
    Reason.REINSTATED: "order.reinstated",
}
"""Events for the platform, besides order.placed."""


async def receive(conn: Connection, event: PaymentEvent, sovereign: str) -> Received:
    """Store an event and apply it; both or neither. `sovereign` is our name; with "" every event is ours.

    A copy of an event that was received before is a DUPLICATE, whatever the outcome of the first; so is a lookup that
    finds nothing new. Raises psycopg's errors, and NewerVersionError for a purchase that only a newer version
    understands.
    """
    async with conn.transaction():
        before = await _insert(conn, event)
        if before is not None and not event.lookup:
            return Received.DUPLICATE
        received, order_id = await _apply(conn, event, sovereign)
        if before is not None and received is not Received.APPLIED and received in (before, Received.NO_CHANGE):
            return Received.DUPLICATE
        values = {"event": event.event_id, "outcome": received.value, "order": order_id}
        await conn.execute(_EVENT_OUTCOME, values)
        return received


async def stale(conn: Connection, older_than_seconds: float, limit: int) -> list[Purchase]:
    """Take purchases that await a payment and were not checked for so long, and ended ones whose next check is due.

    Each now counts as checked. Up to `limit` of either kind. Raises psycopg's errors.
    """
    values = {"seconds": older_than_seconds, "limit": limit, **UNDERSTOOD}
    return await purchases.read(conn, await fetch_all(conn, _STALE, values, rows=scalar_row))


async def ended(conn: Connection, key: Key) -> None:
    """Record that nothing of a purchase without its payment continues at the processor. Raises psycopg's errors."""
    await conn.execute(_ENDED, {"key": key})


async def record_payment(conn: Connection, event: PaymentEvent) -> None:
    """Record what a lookup found about a payment, without a change of its purchase and without storing an event.

    Raises psycopg's errors and LedgerUnavailableError.
    """
    async with conn.transaction():
        if (found := await _locked(conn, event)) is not None:
            await records.record(conn, event, found.order_id, found.due_minor)


async def _apply(conn: Connection, event: PaymentEvent, sovereign: str) -> tuple[Received, str | None]:
    """Apply an event that is stored; return its outcome, and the id of its order."""
    if event.foreign or (sovereign and event.sovereign and event.sovereign != sovereign):
        return Received.FOREIGN, event.order_id
    purchase = await _locked(conn, event)
    if purchase is None:
        return Received.UNKNOWN, event.order_id
    event = replace(event, session_id=await records.session_of(conn, event))
    payment = await records.record(conn, event, purchase.order_id, purchase.due_minor)
    step, received = decide(event, purchase, payment)
    if step is not None:
        await conn.execute(_SETTLE, _changes(purchase, event, step, payment))
    if _resolves(payment, step):
        await conn.execute(_EVENTS_RESOLVED, {"order": purchase.order_id, "session": event.session_id})
    return received, purchase.order_id


def _resolves(payment: Standing, step: Step | None) -> bool:
    """Whether no person need check this payment any more: its money is gone, or it has paid its order."""
    paid = step is not None and step.state is PurchaseState.COMPLETED
    return paid or payment.refunded or payment.lost_minor is not None


async def _locked(conn: Connection, event: PaymentEvent) -> LockedPurchase | None:
    """Find the purchase that an event is about and lock it, after its customer; None when there is none."""
    names = {
        "session": event.session_id,
        "intent": event.payment and event.payment.payment_intent,
        "order": _uuid(event),
    }
    found = await fetch_one(conn, _FIND, names, rows=dict_row)
    if found is None:
        return None
    await conn.execute(_LOCK_CUSTOMER, {"customer": found["customer_id"]})
    return await fetch_one(conn, _LOCK, {"key": found["key"]}, rows=kwargs_row(_locked_purchase))


def _locked_purchase(*, key: str, state: str, **values: Any) -> LockedPurchase:
    if state not in _STATES:
        raise newer_version()
    return LockedPurchase(key=Key(key), state=PurchaseState(state), **values)


def _changes(
    purchase: LockedPurchase, event: PaymentEvent, step: Step, payment: Standing
) -> dict[str, str | int | bool | None]:
    # The platform knows an order that was delivered before; for another one this is its first event.
    return {
        "key": purchase.key,
        "state": step.state.value,
        "reason": step.reason and step.reason.value,
        "order_status": step.order_status,
        "take": step.credit is Credit.TAKE,
        "release": step.credit is Credit.RELEASE,
        "claw_back": step.credit is Credit.CLAW_BACK,
        "release_clawback": step.credit is Credit.RELEASE_CLAWBACK,
        "lost": payment.lost_minor or 0,
        "complete": step.state is PurchaseState.COMPLETED,
        "place": step.state is PurchaseState.COMPLETED and not (step.reason and purchase.delivered),
        "end": step.ends_subscription,
        "session": event.session_id,
        "subscription": event.subscription_id,
        "event": _OUTBOX_EVENTS.get(step.reason) if purchase.delivered else None,
    }


async def _insert(conn: Connection, event: PaymentEvent) -> Received | None:
    """Insert an event; when it is stored already, return its outcome so far.

    A lookup, which is judged again, locks it. A webhook event is not judged again: a lock would make a refund skip it
    (payment_events_resolved.sql), and no later judgement would find it.
    """
    values = {
        "event": event.event_id,
        "type": event.type,
        "raw": event.raw,
        "session": event.session_id,
        "order": event.order_id,
        "outcome": Received.UNKNOWN.value,
    }
    if await fetch_one(conn, _INSERT_EVENT, values, rows=scalar_row) is not None:
        return None
    if not event.lookup:
        return Received.DUPLICATE
    outcome = await fetch_one(conn, _LOCK_EVENT, {"event": event.event_id}, rows=scalar_row)
    return Received(outcome) if outcome in _OUTCOMES else Received.UNKNOWN


def _uuid(event: PaymentEvent) -> UUID | None:
    """Return the order's id; None when the event has none, or one that is not a UUID."""
    try:
        return UUID(event.order_id or "")
    except ValueError:
        return None

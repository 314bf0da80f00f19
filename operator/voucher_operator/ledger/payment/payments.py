"""Receives payment events: stores an event and applies its effect on the purchase, in one transaction.

An event is inserted by its id before anything is decided. So a second copy, at the same moment or a year later,
changes nothing. The result of a lookup at Stripe is decided again each time, because what prevented its effect the
last time may no longer exist. All of it is one transaction: a crash can neither lose an event that was acknowledged
nor repeat its effect.

Events may arrive in any order: `TRANSITIONS` has one entry for each pair of state and effect that changes a purchase.
A purchase changes only for the payment of its own checkout. Another payment of the same order is a mismatch, which
needs a person until it is refunded.

See also: `records` records each payment; `purchases` compensates under the same locks; `locks` has their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from psycopg.rows import dict_row, kwargs_row, scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import newer_version
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.payment import records
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.rows import UNDERSTOOD
from voucher_operator.ledger.purchase.types import (
    PaymentEffect,
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
_EVENT_REFUNDED: Final = statement("payment_event_refunded")
_EVENT_OUTCOME: Final = statement("payment_event_outcome")
_STALE: Final = statement("payment_stale")
_ENDED: Final = statement("payment_ended")
_STATES: Final = frozenset(state.value for state in PurchaseState)
_OUTCOMES: Final = frozenset(outcome.value for outcome in Received)


class Credit(Enum):
    """What happens to the credit that the purchase holds."""

    KEEP = auto()
    """A hold becomes a spend, or was released before: nothing is written."""
    TAKE = auto()
    """It was released, and is held again."""
    RELEASE = auto()
    """It is released to the customer."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a purchase: its new state and reason, the status of the Go service's order, and the credit."""

    state: PurchaseState
    reason: Reason | None
    order_status: str
    credit: Credit


_PAID: Final = Step(PurchaseState.COMPLETED, None, "completed", Credit.KEEP)
_PAID_LATE: Final = Step(PurchaseState.COMPLETED, None, "completed", Credit.TAKE)
_EXPIRED: Final = Step(PurchaseState.CANCELLED, Reason.CHECKOUT_EXPIRED, "cancelled", Credit.RELEASE)
_FAILED: Final = Step(PurchaseState.CANCELLED, Reason.PAYMENT_FAILED, "cancelled", Credit.RELEASE)
_REFUNDED: Final = Step(PurchaseState.REFUNDED, Reason.REFUNDED, "refunded", Credit.RELEASE)
_REFUNDED_LATE: Final = Step(PurchaseState.REFUNDED, Reason.REFUNDED, "refunded", Credit.KEEP)

TRANSITIONS: Final[Mapping[tuple[PurchaseState, PaymentEffect], Step]] = MappingProxyType(
    {
        # A session may be paid or refunded before its URL is recorded. One that expires before that changes nothing: no
        # customer has seen it, so its code must not stay used. The saga then compensates the purchase, or records the
        # session and finds it expired.
        (PurchaseState.PENDING, PaymentEffect.PAID): _PAID,
        (PurchaseState.PENDING, PaymentEffect.FAILED): _FAILED,
        (PurchaseState.PENDING, PaymentEffect.REFUNDED): _REFUNDED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.PAID): _PAID,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.EXPIRED): _EXPIRED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.FAILED): _FAILED,
        # The refund arrived before the event of the payment, which changes nothing when it arrives.
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.REFUNDED): _REFUNDED,
        # The card was charged after the checkout ended: the credit is held again, if the balance still covers it.
        (PurchaseState.CANCELLED, PaymentEffect.PAID): _PAID_LATE,
        (PurchaseState.CANCELLED, PaymentEffect.REFUNDED): _REFUNDED_LATE,
        (PurchaseState.COMPLETED, PaymentEffect.REFUNDED): _REFUNDED,
    }
)
"""Every change of a purchase by a payment. In all other pairs the purchase has this state, or a later one, already."""


@dataclass(frozen=True, slots=True)
class LockedPurchase:
    """What is decided by of a purchase, read under its lock; `balance_minor` is the customer's."""

    key: Key
    state: PurchaseState
    order_id: str
    due_minor: int
    held_minor: int
    session_id: str | None
    balance_minor: int


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
    """Record that nothing of a cancelled or refunded purchase continues at the processor. Raises psycopg's errors."""
    await conn.execute(_ENDED, {"key": key})


async def record_payment(conn: Connection, event: PaymentEvent) -> None:
    """Record what a lookup found about a payment, without a change of its purchase and without storing an event.

    Raises psycopg's errors and LedgerUnavailableError.
    """
    async with conn.transaction():
        if (found := await _locked(conn, event)) is not None:
            await records.record(conn, event, found.order_id)


def decide(event: PaymentEvent, purchase: LockedPurchase, *, refunded: bool) -> tuple[Step | None, Received]:
    """Return the change that an event makes to a purchase, if any, and the outcome of the event. No I/O.

    `refunded`: its payment is refunded in full, as recorded.
    """
    effect = _effect(event, refunded=refunded)
    if None not in (event.session_id, purchase.session_id) and event.session_id != purchase.session_id:
        # A second checkout of one order. That it ends changes nothing; that it was paid does, until it is refunded.
        return None, Received.MISMATCH if effect is PaymentEffect.PAID else Received.NO_CHANGE
    step = TRANSITIONS.get((purchase.state, effect))
    if effect is PaymentEffect.PAID and _unaccounted(event, purchase, step):
        return None, Received.MISMATCH
    if step is not None:
        return step, Received.APPLIED
    if purchase.state is PurchaseState.ROLLED_BACK and event.effect is effect is PaymentEffect.REFUNDED:
        # It stays rolled back. The refund resolves the mismatch of its payment, before or after that event arrives.
        return None, Received.APPLIED
    return None, Received.NO_CHANGE


def _effect(event: PaymentEvent, *, refunded: bool) -> PaymentEffect:
    """Return the effect of an event after its payment is recorded: its refund may be known before the payment is."""
    if event.effect is PaymentEffect.PAID and refunded:
        return PaymentEffect.REFUNDED
    if event.effect is PaymentEffect.REFUNDED and not refunded:
        # The refund has failed since, or its payment is not known.
        return PaymentEffect.NONE
    return event.effect


async def _apply(conn: Connection, event: PaymentEvent, sovereign: str) -> tuple[Received, str | None]:
    """Apply an event that is stored; return its outcome, and the id of its order."""
    if event.foreign or (sovereign and event.sovereign and event.sovereign != sovereign):
        return Received.FOREIGN, event.order_id
    purchase = await _locked(conn, event)
    if purchase is None:
        return Received.UNKNOWN, event.order_id
    event = replace(event, session_id=await records.session_of(conn, event))
    refunded = await records.record(conn, event, purchase.order_id)
    step, received = decide(event, purchase, refunded=refunded)
    if step is not None:
        await conn.execute(_SETTLE, _changes(purchase.key, event, step))
    if refunded:
        await conn.execute(_EVENT_REFUNDED, {"order": purchase.order_id, "session": event.session_id})
    return received, purchase.order_id


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


def _unaccounted(event: PaymentEvent, purchase: LockedPurchase, step: Step | None) -> bool:
    """Return whether an amount was paid for which this purchase has no use."""
    if purchase.state is PurchaseState.ROLLED_BACK:
        return True
    if step is None:
        return False
    if event.amount_minor is not None and event.amount_minor != purchase.due_minor:
        return True
    # Only a step that takes credit needs the balance: a negative one is no obstacle for the others.
    return step.credit is Credit.TAKE and purchase.held_minor > max(purchase.balance_minor, 0)


def _changes(key: Key, event: PaymentEvent, step: Step) -> dict[str, str | bool | None]:
    return {
        "key": key,
        "state": step.state.value,
        "reason": step.reason and step.reason.value,
        "order_status": step.order_status,
        "take": step.credit is Credit.TAKE,
        "release": step.credit is Credit.RELEASE,
        "complete": step.state is PurchaseState.COMPLETED,
        "refund": step.state is PurchaseState.REFUNDED,
        # A checkout that expired has started no subscription.
        "end": step in (_REFUNDED, _REFUNDED_LATE, _FAILED),
        "session": event.session_id,
        "subscription": event.subscription_id,
    }


async def _insert(conn: Connection, event: PaymentEvent) -> Received | None:
    """Insert an event; when it is stored already, return its outcome so far.

    A lookup, which is judged again, locks it. A webhook event is not judged again: a lock would make a refund skip it
    (payment_event_refunded.sql), and no later judgement would find it.
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

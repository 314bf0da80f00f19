"""What the payment processor says, and what it means for a purchase: the event and its effect in one transaction.

An event is kept under its id before anything is judged, so a second copy, at the same moment or a year later, changes
nothing; a look at Stripe is judged each time, for what stood in its way the last time may be gone. And as all is one
transaction, a crash can neither lose an event that was answered nor repeat its effect. Events may come in any order:
each pair of state and effect has one answer in `TRANSITIONS`, and what is not there changes nothing. A purchase changes
only for the payment of its own checkout: another one of the same order waits for a person until it is refunded.

Locks: the event's id, then customers, then the purchase. See also: `payment_records`, which remembers each payment;
`purchases`, which places and compensates under the same locks; `outbox`, which reads the events that are written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Final
from uuid import UUID

from voucher_operator.ledger.errors import newer_version
from voucher_operator.ledger.payment import records as payment_records
from voucher_operator.ledger.pool import Connection
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

_KEEP: Final = statement("payment_event_insert")
_KEPT: Final = statement("payment_event_lock")
_FIND: Final = statement("payment_find")
_LOCK_CUSTOMER: Final = statement("customer_lock")
_LOCK: Final = statement("payment_lock")
_SETTLE: Final = statement("payment_settle")
_ANSWERED: Final = statement("payment_event_refunded")
_OUTCOME: Final = statement("payment_event_outcome")
_STALE: Final = statement("payment_stale")
_ENDED: Final = statement("payment_ended")
_STATES: Final = frozenset(state.value for state in PurchaseState)
_OUTCOMES: Final = frozenset(outcome.value for outcome in Received)


class Credit(Enum):
    """What happens to the credit that the purchase holds."""

    KEEP = auto()
    """A hold becomes a spend, or is gone already: nothing is written."""
    TAKE = auto()
    """It was released, and is taken once more."""
    RELEASE = auto()
    """It goes back to the customer."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a purchase goes, why, what the Go service's order then says, and what happens to the credit."""

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
        # A session may be paid or given back before its URL is noted. One that expires then was nobody's: the code must
        # not be used up for it, so whoever drives the purchase takes it back whole, or finds it expired after the note.
        (PurchaseState.PENDING, PaymentEffect.PAID): _PAID,
        (PurchaseState.PENDING, PaymentEffect.FAILED): _FAILED,
        (PurchaseState.PENDING, PaymentEffect.REFUNDED): _REFUNDED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.PAID): _PAID,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.EXPIRED): _EXPIRED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.FAILED): _FAILED,
        # The refund came before the event of the payment, which changes nothing when it comes.
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.REFUNDED): _REFUNDED,
        # The money was taken after all: so is the credit, if it is still there.
        (PurchaseState.CANCELLED, PaymentEffect.PAID): _PAID_LATE,
        (PurchaseState.CANCELLED, PaymentEffect.REFUNDED): _REFUNDED_LATE,
        (PurchaseState.COMPLETED, PaymentEffect.REFUNDED): _REFUNDED,
    }
)
"""Every change of a purchase that a payment makes. In all other pairs the purchase is there, or further, already."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a purchase stands while it is locked; `balance_minor` is the customer's."""

    state: PurchaseState
    order_id: str
    due_minor: int
    held_minor: int
    session_id: str | None
    balance_minor: int


async def receive(conn: Connection, event: PaymentEvent, sovereign: str) -> Received:
    """Keep an event and do what follows from it; both or neither. `sovereign` is ours; "" takes every event for ours.

    A copy of an event that was received before is a DUPLICATE, whatever became of the first; so is a look that finds
    nothing new. Raises psycopg's errors, and NewerVersionError for a purchase that only a newer version understands.
    """
    async with conn.transaction():
        before = await _keep(conn, event)
        if before is not None and not event.looked:
            return Received.DUPLICATE
        received, order_id = await _settle(conn, event, sovereign)
        if before is not None and received is not Received.APPLIED and received in (before, Received.NO_CHANGE):
            return Received.DUPLICATE
        await conn.execute(_OUTCOME, {"event": event.event_id, "outcome": received.value, "order": order_id})
        return received


async def stale(conn: Connection, older_than_seconds: float, limit: int) -> list[Purchase]:
    """Return purchases that await a payment and were not looked at for so long, and ended ones that are due for a look.

    Now they have been looked at. Up to `limit` of either. Raises psycopg's errors.
    """
    cursor = await conn.execute(_STALE, {"seconds": older_than_seconds, "limit": limit, **UNDERSTOOD})
    return await purchases.read(conn, [row[0] for row in await cursor.fetchall()])


async def ended(conn: Connection, key: Key) -> None:
    """Note that nothing of a cancelled or refunded purchase goes on at the processor. Raises psycopg's errors."""
    await conn.execute(_ENDED, {"key": key})


async def note_payment(conn: Connection, event: PaymentEvent) -> None:
    """Record what a look found out about a payment without anything to do for its purchase, or to keep as an event.

    Raises psycopg's errors and LedgerUnavailableError.
    """
    async with conn.transaction():
        if (found := await _locked(conn, event)) is not None:
            await payment_records.record(conn, event, found[1].order_id)


def judge(event: PaymentEvent, standing: _Standing, *, refunded: bool) -> tuple[Step | None, Received]:
    """Say what follows from an event for a purchase that stands so; `refunded`: its payment is, in full, as recorded.

    Decides alone, without I/O.
    """
    effect = _effect(event, refunded=refunded)
    if None not in (event.session_id, standing.session_id) and event.session_id != standing.session_id:
        # A second checkout of one order: its end is nothing to us, its money is, until it has been given back.
        return None, Received.MISMATCH if effect is PaymentEffect.PAID else Received.NO_CHANGE
    step = TRANSITIONS.get((standing.state, effect))
    if effect is PaymentEffect.PAID and _unasked(event, standing, step):
        return None, Received.MISMATCH
    if step is not None:
        return step, Received.APPLIED
    if standing.state is PurchaseState.ROLLED_BACK and event.effect is effect is PaymentEffect.REFUNDED:
        # It stays rolled back; that the money is back settles what its payment said, or is still to say.
        return None, Received.APPLIED
    return None, Received.NO_CHANGE


def _effect(event: PaymentEvent, *, refunded: bool) -> PaymentEffect:
    """Say what an event means once its payment is recorded, for the news of a refund may have come before or since."""
    if event.effect is PaymentEffect.PAID and refunded:
        return PaymentEffect.REFUNDED
    if event.effect is PaymentEffect.REFUNDED and not refunded:
        # The refund has failed since, or nobody knows of which payment it is.
        return PaymentEffect.NONE
    return event.effect


async def _settle(conn: Connection, event: PaymentEvent, sovereign: str) -> tuple[Received, str | None]:
    """Do what follows from an event that is kept; say what became of it, and of which order it tells."""
    if sovereign and event.sovereign and event.sovereign != sovereign:
        return Received.FOREIGN, event.order_id
    found = await _locked(conn, event)
    if found is None:
        return Received.UNKNOWN, event.order_id
    key, standing = found
    event = replace(event, session_id=await payment_records.session_of(conn, event))
    refunded = await payment_records.record(conn, event, standing.order_id)
    step, received = judge(event, standing, refunded=refunded)
    if step is not None:
        await conn.execute(_SETTLE, _changes(key, event, step))
    if refunded:
        await conn.execute(_ANSWERED, {"order": standing.order_id, "session": event.session_id})
    return received, standing.order_id


async def _locked(conn: Connection, event: PaymentEvent) -> tuple[Key, _Standing] | None:
    """Find the purchase that an event is about and lock it, after its customer; None when there is none."""
    names = {
        "session": event.session_id,
        "intent": event.payment and event.payment.payment_intent,
        "order": _uuid(event),
    }
    found = await (await conn.execute(_FIND, names)).fetchone()
    if found is None:
        return None
    await conn.execute(_LOCK_CUSTOMER, {"customer": found[1]})
    row = await (await conn.execute(_LOCK, {"key": found[0]})).fetchone()
    if row is None:
        return None
    if row[0] not in _STATES:
        raise newer_version()
    return Key(found[0]), _Standing(PurchaseState(row[0]), *row[1:])


def _unasked(event: PaymentEvent, standing: _Standing, step: Step | None) -> bool:
    """Whether money was taken that this purchase does not account for."""
    if standing.state is PurchaseState.ROLLED_BACK:
        return True
    if step is None:
        return False
    if event.amount_minor is not None and event.amount_minor != standing.due_minor:
        return True
    # What takes no credit asks for none: debts elsewhere do not matter then.
    return step.credit is Credit.TAKE and standing.held_minor > max(standing.balance_minor, 0)


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
        # A checkout that expired has begun nothing.
        "end": step in (_REFUNDED, _REFUNDED_LATE, _FAILED),
        "session": event.session_id,
        "subscription": event.subscription_id,
    }


async def _keep(conn: Connection, event: PaymentEvent) -> Received | None:
    """Keep an event; what became of it before, locked, when it is there already."""
    values = {
        "event": event.event_id,
        "type": event.type,
        "raw": event.raw,
        "session": event.session_id,
        "order": event.order_id,
        "outcome": Received.UNKNOWN.value,
    }
    if await (await conn.execute(_KEEP, values)).fetchone() is not None:
        return None
    row = await (await conn.execute(_KEPT, {"event": event.event_id})).fetchone()
    return Received(row[0]) if row and row[0] in _OUTCOMES else Received.UNKNOWN


def _uuid(event: PaymentEvent) -> UUID | None:
    """The order's id; None when what the event names is no id of ours."""
    try:
        return UUID(event.order_id or "")
    except ValueError:
        return None

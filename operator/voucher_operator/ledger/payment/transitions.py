"""What a payment's event does to a purchase: one table of states and effects, and the rules beside it. No I/O.

Money that goes back ends an order, and money that comes again brings it back:

- A full refund ends the order, and its credit is released. When that refund fails, the order is completed again, and as
  much of the credit is taken as is not spent.
- A lost dispute ends the order, too. Its credit stays spent, and as much of what was lost is taken as the customer has
  credit. When the dispute is won after all, that credit is released.

What could not be taken is the outstanding amount of the payment. See also: `payments` reads and writes; `records` says
how a payment stands; payment_settle.sql does a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from voucher_operator.ledger.payment.records import Standing
from voucher_operator.ledger.purchase.types import PaymentEffect, PaymentEvent, PurchaseState, Received
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason


class Credit(Enum):
    """What happens to the credit of the purchase."""

    KEEP = auto()
    """A hold becomes a spend, or was released before: nothing is written."""
    TAKE = auto()
    """It was released, and is taken again, as far as it is not spent."""
    RELEASE = auto()
    """It is released to the customer."""
    CLAW_BACK = auto()
    """What was lost is taken from the customer's credit, as far as there is any."""
    RELEASE_CLAWBACK = auto()
    """What was taken for a loss is released to the customer."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a purchase: its new state and reason, the status of the Go service's order, and the credit."""

    state: PurchaseState
    reason: Reason | None
    order_status: str
    credit: Credit

    @property
    def ends_subscription(self) -> bool:
        """Whether a subscription may have been started that must not continue: an expired checkout has started none."""
        return self.reason in (Reason.REFUNDED, Reason.PAYMENT_FAILED, Reason.PAYMENT_LOST, Reason.REINSTATED)


_PAID: Final = Step(PurchaseState.COMPLETED, None, "completed", Credit.KEEP)
_PAID_LATE: Final = Step(PurchaseState.COMPLETED, None, "completed", Credit.TAKE)
_EXPIRED: Final = Step(PurchaseState.CANCELLED, Reason.CHECKOUT_EXPIRED, "cancelled", Credit.RELEASE)
_FAILED: Final = Step(PurchaseState.CANCELLED, Reason.PAYMENT_FAILED, "cancelled", Credit.RELEASE)
_REFUNDED: Final = Step(PurchaseState.REFUNDED, Reason.REFUNDED, "refunded", Credit.RELEASE)
_REFUNDED_LATE: Final = Step(PurchaseState.REFUNDED, Reason.REFUNDED, "refunded", Credit.KEEP)
_RETURNED: Final = Step(PurchaseState.COMPLETED, Reason.REINSTATED, "completed", Credit.TAKE)
_LOST: Final = Step(PurchaseState.CHARGED_BACK, Reason.PAYMENT_LOST, "charged_back", Credit.CLAW_BACK)
_RECOVERED: Final = Step(PurchaseState.COMPLETED, Reason.REINSTATED, "completed", Credit.RELEASE_CLAWBACK)

TRANSITIONS: Final[Mapping[tuple[PurchaseState, PaymentEffect], Step]] = MappingProxyType(
    {
        # A session may be paid or refunded before its URL is recorded. One that expires before that changes nothing: no
        # customer has seen it, so its code must not stay used. The saga then compensates the purchase, or records the
        # session and finds it expired.
        (PurchaseState.PENDING, PaymentEffect.PAID): _PAID,
        (PurchaseState.PENDING, PaymentEffect.FAILED): _FAILED,
        (PurchaseState.PENDING, PaymentEffect.REFUNDED): _REFUNDED,
        # Nothing was delivered for a payment that was lost before it was known: nothing is outstanding either.
        (PurchaseState.PENDING, PaymentEffect.LOST): _FAILED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.PAID): _PAID,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.EXPIRED): _EXPIRED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.FAILED): _FAILED,
        # The refund arrived before the event of the payment, which changes nothing when it arrives.
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.REFUNDED): _REFUNDED,
        (PurchaseState.AWAITING_PAYMENT, PaymentEffect.LOST): _FAILED,
        # The card was charged after the checkout ended: the credit is held again, if the balance still covers it.
        (PurchaseState.CANCELLED, PaymentEffect.PAID): _PAID_LATE,
        (PurchaseState.CANCELLED, PaymentEffect.REFUNDED): _REFUNDED_LATE,
        (PurchaseState.COMPLETED, PaymentEffect.REFUNDED): _REFUNDED,
        (PurchaseState.COMPLETED, PaymentEffect.LOST): _LOST,
        (PurchaseState.REFUNDED, PaymentEffect.RETURNED): _RETURNED,
        (PurchaseState.CHARGED_BACK, PaymentEffect.RECOVERED): _RECOVERED,
    }
)
"""Every change of a purchase by a payment. In all other pairs the purchase has this state, or a later one, already."""


@dataclass(frozen=True, slots=True)
class LockedPurchase:
    """What is decided by of a purchase, read under its lock; `balance_minor` is the customer's.

    `delivered`: it was completed at some time, so it has its subscription and its event order.placed.
    """

    key: Key
    state: PurchaseState
    order_id: str
    due_minor: int
    held_minor: int
    session_id: str | None
    balance_minor: int
    delivered: bool

    @property
    def covers_credit(self) -> bool:
        """Whether the balance covers the credit of this purchase. A purchase without credit needs no balance."""
        return self.held_minor <= max(self.balance_minor, 0)


def decide(event: PaymentEvent, purchase: LockedPurchase, payment: Standing) -> tuple[Step | None, Received]:
    """Return the change that an event makes to a purchase, if any, and the outcome of the event.

    `payment` is how the event's payment stands, with the event recorded.
    """
    effect = _effect(event, payment)
    if None not in (event.session_id, purchase.session_id) and event.session_id != purchase.session_id:
        # A second checkout of one order. That it ends changes nothing; that its money is here does, until a refund.
        is_here = effect in (PaymentEffect.PAID, PaymentEffect.RETURNED)
        return None, Received.MISMATCH if is_here else Received.NO_CHANGE
    step = TRANSITIONS.get((purchase.state, effect))
    if _is_unaccounted(event, effect, purchase, step):
        return None, Received.MISMATCH
    if step is not None:
        return step, Received.APPLIED
    if purchase.state is PurchaseState.ROLLED_BACK and event.effect is effect is PaymentEffect.REFUNDED:
        # It stays rolled back. The refund resolves the mismatch of its payment, before or after that event arrives.
        return None, Received.APPLIED
    return None, Received.NO_CHANGE


def _effect(event: PaymentEvent, payment: Standing) -> PaymentEffect:
    """Return the effect of an event by how its payment stands: what ends it may be known before the payment is."""
    match event.effect:
        case PaymentEffect.PAID if payment.refunded:
            return PaymentEffect.REFUNDED
        case PaymentEffect.PAID if payment.lost_minor is not None:
            return PaymentEffect.LOST
        case PaymentEffect.REFUNDED if not payment.refunded:
            # The refund has failed since, or its payment is not known.
            return PaymentEffect.NONE
        case PaymentEffect.PARTLY_REFUNDED if payment.returned:
            return PaymentEffect.RETURNED
        case PaymentEffect.DISPUTED if payment.lost_minor is not None:
            return PaymentEffect.LOST
        case PaymentEffect.DISPUTED if event.dispute is not None and not payment.disputes_lost:
            return PaymentEffect.RECOVERED
        case effect:
            return effect


def _is_unaccounted(event: PaymentEvent, effect: PaymentEffect, purchase: LockedPurchase, step: Step | None) -> bool:
    """Return whether money is here for which this purchase has no use."""
    if effect not in (PaymentEffect.PAID, PaymentEffect.RETURNED):
        return False
    if purchase.state is PurchaseState.ROLLED_BACK:
        return True
    if step is None:
        return False
    if event.amount_minor is not None and event.amount_minor != purchase.due_minor:
        return True
    # An order that was delivered is paid for as far as possible; another one is delivered only for all of its credit.
    return step.credit is Credit.TAKE and not purchase.delivered and not purchase.covers_credit

"""The states of a Redemption: one table of the states and of the causes that lead to each.

docs/redemption.md has the state diagram that `diagram` writes (a test compares them). The ledger is the source of
truth and the status follows it, level-triggered: a state that ends before it is written is skipped. See also: `status`,
here and in `purchase`, takes the state that it writes from here, by its cause.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.resources.redemption import State


class Cause(Enum):
    """Why a Redemption enters a state."""

    WAITS = auto()
    CREDITED = auto()
    REFUSED = auto()
    UNDONE = auto()
    CHECKOUT_MADE = auto()
    COVERED = auto()
    PAID = auto()
    COMPENSATED = auto()
    NOT_IN_LEDGER = auto()
    """The ledger does not know it, because one of the two was restored from a backup."""
    COMPENSATED_IN_PART = auto()
    """The order is undone, but not the redemption: its credit was spent elsewhere meanwhile."""
    ENDED = auto()
    """The order was not paid, or its payment went back, after the customer had the checkout URL; the code stays."""
    ENDED_EMPTY = auto()
    """The same for an order without a code."""


@dataclass(frozen=True, slots=True)
class Transition:
    """`sources` -> `target`; each source has the label of its arrow."""

    sources: Mapping[State, str]
    target: State


TRANSITIONS: Final[Mapping[Cause, Transition]] = MappingProxyType(
    {
        Cause.WAITS: Transition({State.PENDING: "waits and retries"}, State.PENDING),
        Cause.CREDITED: Transition({State.PENDING: "credit given, no order"}, State.REDEEMED),
        Cause.REFUSED: Transition({State.PENDING: "refused"}, State.REJECTED),
        Cause.UNDONE: Transition({State.REDEEMED: "undone"}, State.ROLLED_BACK),
        Cause.CHECKOUT_MADE: Transition({State.PENDING: "order placed, credit held"}, State.AWAITING_PAYMENT),
        Cause.COVERED: Transition({State.PENDING: "order placed, paid by credit"}, State.COMPLETED),
        Cause.PAID: Transition(
            {
                State.AWAITING_PAYMENT: "paid",
                State.REDEEMED: "paid at the last moment, or after all",
                State.ROLLED_BACK: "paid at the last moment, or after all",
            },
            State.COMPLETED,
        ),
        Cause.NOT_IN_LEDGER: Transition(
            {State.REDEEMED: "not in the ledger", State.COMPLETED: "not in the ledger"}, State.ROLLED_BACK
        ),
        Cause.COMPENSATED: Transition({State.PENDING: "cannot be paid"}, State.ROLLED_BACK),
        Cause.COMPENSATED_IN_PART: Transition({State.PENDING: "cannot be paid, credit spent"}, State.REDEEMED),
        Cause.ENDED: Transition(
            {State.AWAITING_PAYMENT: "not paid, credit stays", State.COMPLETED: "refunded or charged back"},
            State.REDEEMED,
        ),
        Cause.ENDED_EMPTY: Transition(
            {State.AWAITING_PAYMENT: "not paid, no code", State.COMPLETED: "payment gone, no code"}, State.ROLLED_BACK
        ),
    }
)
ENDS: Final = (State.REDEEMED, State.COMPLETED, State.REJECTED, State.ROLLED_BACK)


def target(cause: Cause) -> State:
    """Return the state that a cause leads to."""
    return TRANSITIONS[cause].target


def cause_of(purchase: Purchase, *, with_code: bool) -> Cause:
    """Return the cause for the state of a purchase; `with_code`: the Redemption also redeems a code."""
    match purchase.state:
        case PurchaseState.PENDING:
            return Cause.WAITS
        case PurchaseState.AWAITING_PAYMENT:
            return Cause.CHECKOUT_MADE
        case PurchaseState.COMPLETED:
            return Cause.PAID if purchase.due_minor else Cause.COVERED
        case PurchaseState.ROLLED_BACK:
            return Cause.COMPENSATED_IN_PART if purchase.redeemed else Cause.COMPENSATED
        case PurchaseState.CANCELLED | PurchaseState.REFUNDED | PurchaseState.CHARGED_BACK:
            return Cause.ENDED if with_code and purchase.redeemed else Cause.ENDED_EMPTY


def diagram() -> str:
    """Return the table as a mermaid state diagram."""
    arrows = [f"    [*] --> {State.PENDING}: created"]
    for transition in TRANSITIONS.values():
        arrows += [f"    {source} --> {transition.target}: {label}" for source, label in transition.sources.items()]
    return "\n".join(["stateDiagram-v2", *arrows, *(f"    {state} --> [*]" for state in ENDS)])

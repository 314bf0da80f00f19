"""The states of a Redemption: the one table that says which there are, how each is reached, and why.

`redemption_status` and `purchase_status` take the state that they write from here, by its cause, and docs/redemption.md
shows the picture that `diagram` draws (a test holds it to the table). The ledger has the truth and the status follows
it, level-triggered: a state that was over before it could be written is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.resources.redemption import State


class Cause(Enum):
    """What brings a Redemption into a state."""

    WAITS = auto()
    CREDITED = auto()
    REFUSED = auto()
    UNDONE = auto()
    CHECKOUT_MADE = auto()
    COVERED = auto()
    PAID = auto()
    COMPENSATED = auto()
    COMPENSATED_IN_PART = auto()
    """Taken back but for the code, whose credit was spent elsewhere meanwhile."""
    ENDED = auto()
    """The order came to nothing after the customer had the checkout URL; what the code gave stays."""
    ENDED_EMPTY = auto()
    """The same without a code: nothing stays."""


@dataclass(frozen=True, slots=True)
class Transition:
    """`sources` -> `target`; the words are those beside the arrows."""

    sources: Mapping[State, str]
    target: State


TRANSITIONS: Final[Mapping[Cause, Transition]] = MappingProxyType(
    {
        Cause.WAITS: Transition({State.PENDING: "waits and tries again"}, State.PENDING),
        Cause.CREDITED: Transition({State.PENDING: "credit given, no order"}, State.REDEEMED),
        Cause.REFUSED: Transition({State.PENDING: "refused"}, State.REJECTED),
        Cause.UNDONE: Transition({State.REDEEMED: "undone"}, State.ROLLED_BACK),
        Cause.CHECKOUT_MADE: Transition({State.PENDING: "order placed, credit held"}, State.AWAITING_PAYMENT),
        Cause.COVERED: Transition({State.PENDING: "order placed, paid by credit"}, State.COMPLETED),
        Cause.PAID: Transition(
            {
                State.AWAITING_PAYMENT: "paid",
                State.REDEEMED: "paid at the last moment",
                State.ROLLED_BACK: "paid at the last moment",
            },
            State.COMPLETED,
        ),
        Cause.COMPENSATED: Transition({State.PENDING: "cannot be paid"}, State.ROLLED_BACK),
        Cause.COMPENSATED_IN_PART: Transition({State.PENDING: "cannot be paid, credit spent"}, State.REDEEMED),
        Cause.ENDED: Transition(
            {State.AWAITING_PAYMENT: "not paid, credit stays", State.COMPLETED: "refunded, credit stays"},
            State.REDEEMED,
        ),
        Cause.ENDED_EMPTY: Transition(
            {State.AWAITING_PAYMENT: "not paid, no code", State.COMPLETED: "refunded, no code"}, State.ROLLED_BACK
        ),
    }
)
ENDS: Final = (State.REDEEMED, State.COMPLETED, State.REJECTED, State.ROLLED_BACK)


def target(cause: Cause) -> State:
    """Return the state that a cause leads to."""
    return TRANSITIONS[cause].target


def cause_of(purchase: Purchase, *, with_code: bool) -> Cause:
    """Say why a Redemption is where its purchase stands; `with_code`: it redeems a code, too."""
    match purchase.state:
        case PurchaseState.PENDING:
            return Cause.WAITS
        case PurchaseState.AWAITING_PAYMENT:
            return Cause.CHECKOUT_MADE
        case PurchaseState.COMPLETED:
            return Cause.PAID if purchase.due_minor else Cause.COVERED
        case PurchaseState.ROLLED_BACK:
            return Cause.COMPENSATED_IN_PART if purchase.redeemed else Cause.COMPENSATED
        case PurchaseState.CANCELLED | PurchaseState.REFUNDED:
            return Cause.ENDED if with_code and purchase.redeemed else Cause.ENDED_EMPTY


def diagram() -> str:
    """Draw the table as a mermaid state diagram."""
    arrows = [f"    [*] --> {State.PENDING}: created"]
    for transition in TRANSITIONS.values():
        arrows += [f"    {source} --> {transition.target}: {words}" for source, words in transition.sources.items()]
    return "\n".join(["stateDiagram-v2", *arrows, *(f"    {state} --> [*]" for state in ENDS)])

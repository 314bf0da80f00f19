"""What buying puts into the ledger and gets out of it: plain frozen values, no SQL, no Kubernetes, no Stripe.

Amounts are integers of minor units of the ledger's one currency; times are aware datetimes from PostgreSQL's clock.
Neighbours: `types` has the same for redeeming, `voucher_operator.ledger.api` takes and returns them.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from voucher_operator.ledger.types import RedeemRequest, RedeemResult
from voucher_operator.resources.reasons import Reason


class PurchaseState(StrEnum):
    """Where a purchase stands. `PENDING` and `AWAITING_PAYMENT` are open, the others are ends."""

    PENDING = "pending"
    """The order is written and the credit held; the customer has no checkout URL yet."""
    AWAITING_PAYMENT = "awaiting_payment"
    """The customer has a checkout URL."""
    COMPLETED = "completed"
    """Paid, by credit alone or by credit and card."""
    CANCELLED = "cancelled"
    """The checkout expired or its payment failed: the hold is released, the redeemed credit stays."""
    ROLLED_BACK = "rolled_back"
    """Compensated: hold released, redemption undone, order failed."""
    REFUNDED = "refunded"
    """Completed, then refunded in full: the credit is back."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is bought, priced by the catalog before anything was consumed. `kind` is plan or addon."""

    kind: str
    id: str
    slug: str
    name: str
    price_minor: int
    stripe_price_id: str | None = None


@dataclass(frozen=True, slots=True)
class PurchaseRequest:
    """One request to buy, with or without a voucher.

    `redeem.code` is "" when only the balance is to be spent. `payable`: Stripe is configured; without it what the
    credit does not cover is refused before anything is consumed. `step_minor` and `minimum_minor` are Stripe's rules of
    the currency: the card pays nothing, or a multiple of the one and at least the other. `deadline_seconds`: how long
    what may pass is retried before the purchase is rolled back.
    """

    redeem: RedeemRequest
    plan_id: str
    apps: tuple[str, ...]
    addons: tuple[str, ...]
    lines: tuple[Line, ...]
    total_minor: int
    subdomain: str
    payable: bool
    step_minor: int
    minimum_minor: int
    deadline_seconds: int

    @property
    def key(self) -> str:
        """The idempotency key, as in `RedeemRequest`."""
        return self.redeem.key

    @property
    def code(self) -> str:
        """The code to redeem; "" for none."""
        return self.redeem.code

    @property
    def user_id(self) -> str:
        """Who buys."""
        return self.redeem.user_id


@dataclass(frozen=True, slots=True)
class Purchase:
    """One purchase as the ledger has it. `held_minor` of the total is paid by credit, `due_minor` by card."""

    key: str
    uid: str
    order_id: str
    state: PurchaseState
    reason: Reason | None
    user_id: str
    customer_id: str
    tenant_id: str
    email: str
    plan_id: str
    apps: tuple[str, ...]
    addons: tuple[str, ...]
    lines: tuple[Line, ...]
    subdomain: str
    total_minor: int
    held_minor: int
    due_minor: int
    granted_minor: int
    """Credit that the redeemed code gave; 0 without one."""
    stripe_customer_id: str | None
    session_id: str | None
    checkout_url: str | None
    session_expires_at: datetime | None
    placed_at: datetime
    deadline_at: datetime
    settled_at: datetime | None
    overdue: bool
    """Whether the deadline has passed, by PostgreSQL's clock."""
    request_hash: str
    """Of the request that made it: another object that asks for the very same has this purchase, too."""
    redeemed: bool
    """Whether a code was redeemed with it and that stands: a compensation cannot take back what was spent meanwhile."""


@dataclass(frozen=True, slots=True)
class PurchaseResult:
    """The answer: `purchase` when there is one (also a rolled back one), else `refusal` says why there is none."""

    key: str
    decided_at: datetime
    purchase: Purchase | None = None
    redeemed: RedeemResult | None = None
    refusal: Reason | None = None
    replayed: bool = False


class PaymentEffect(StrEnum):
    """What an event of the payment processor means for a purchase."""

    PAID = "paid"
    """Session completed and paid (or nothing to pay), or an asynchronous payment succeeded."""
    PROCESSING = "processing"
    """Session completed, the money is on its way: nothing changes yet."""
    EXPIRED = "expired"
    FAILED = "failed"
    """An asynchronous payment failed."""
    REFUNDED = "refunded"
    """Refunded in full."""
    NONE = "none"
    """Kept, without an effect: partial refunds, unknown types, other Sovereigns' sessions."""


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """One verified webhook event, or what a look at a session found out (`event_id` is then made up from its state).

    `session_id` or `order_id` finds the purchase. `amount_minor` is what was paid, when the event says so. `looked`: it
    is a look at what is, which means something each time, and no event, which means something once.
    """

    event_id: str
    type: str
    effect: PaymentEffect
    raw: bytes
    session_id: str | None = None
    order_id: str | None = None
    subscription_id: str | None = None
    amount_minor: int | None = None
    sovereign: str | None = None
    looked: bool = False


class Received(StrEnum):
    """What became of an event; a label of the metric that counts them."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """This event id was received before; of a look: and it says no more than then."""
    NO_CHANGE = "no_change"
    """The purchase was already there (or further)."""
    UNKNOWN = "unknown"
    """No purchase has this session or order: kept."""
    FOREIGN = "foreign"
    """Another Sovereign's: kept."""
    MISMATCH = "mismatch"
    """What was paid is not what was due, or a rolled back order was paid: kept, for a human to look at."""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One event of the platform's envelope. `seq` orders, `id` deduplicates; `age_seconds` by PostgreSQL's clock."""

    seq: int
    id: str
    type: str
    tenant_id: str
    at: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """What waits to be published."""

    waiting: int
    """Events, counted up to 100,000."""
    oldest_seconds: float


__all__ = [
    "Line",
    "OutboxBacklog",
    "OutboxEvent",
    "PaymentEffect",
    "PaymentEvent",
    "Purchase",
    "PurchaseRequest",
    "PurchaseResult",
    "PurchaseState",
    "Received",
    "RedeemRequest",
    "RedeemResult",
]

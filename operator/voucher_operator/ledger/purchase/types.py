"""Requests to buy, their results, and payment events: plain frozen values, no SQL, no Kubernetes, no Stripe.

Amounts are integers of minor units of the ledger's one currency; times are aware datetimes from PostgreSQL's clock.
See also: `ledger.types` has the same for redeeming; `ledger.api` takes and returns them.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from voucher_operator.ledger.types import RedeemRequest, RedeemResult
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason


class PurchaseState(StrEnum):
    """The state of a purchase. `PENDING` and `AWAITING_PAYMENT` are open, the others are final."""

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
    CHARGED_BACK = "charged_back"
    """Completed, then the payment was lost by a dispute: the order has ended, and its credit stays spent."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order, priced by the catalog before anything was consumed. `kind` is plan or addon."""

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
    the currency: the card pays nothing, or a multiple of the one and at least the other. A minimum of more than the
    total says that no card can pay this order. `deadline_seconds`: how long transient errors are retried before the
    purchase is rolled back. `any_tenant`: the request may spend the customer's
    credit for another tenant than the one that the ledger has for the customer.
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
    any_tenant: bool

    @property
    def key(self) -> Key:
        """The idempotency key, as in `RedeemRequest`."""
        return self.redeem.key

    @property
    def code(self) -> str:
        """The code to redeem; "" for none."""
        return self.redeem.code

    @property
    def user_id(self) -> str:
        """The user who buys."""
        return self.redeem.user_id

    def due_minor(self, balance_minor: int) -> int:
        """Return what the card would pay beside this balance, in minor units, as `purchase_place.sql` computes it."""
        rest = self.total_minor - max(min(self.total_minor, balance_minor), 0)
        return -(-max(rest, self.minimum_minor) // self.step_minor) * self.step_minor if rest else 0

    def refusal(self, balance_minor: int, *, mismatched: bool) -> Reason | None:
        """Return why `purchase_place.sql` would refuse this order at this balance; None when it would place it.

        `mismatched`: the customer is another tenant's, and the request may not spend for any tenant.
        """
        due = self.due_minor(balance_minor)
        if due < self.total_minor and mismatched:
            return Reason.CUSTOMER_MISMATCH
        if due and not self.payable:
            return Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED
        return Reason.INVALID_ORDER if due > self.total_minor else None


@dataclass(frozen=True, slots=True)
class Purchase:
    """One purchase as the ledger has it. `held_minor` of the total is paid by credit, `due_minor` by card."""

    key: Key
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
    """Of the request that made it: another object with the same key and request has this purchase, too."""
    redeemed: bool
    """Whether its code is still redeemed: a compensation cannot undo it when the credit was spent meanwhile."""


@dataclass(frozen=True, slots=True)
class PurchaseResult:
    """The result: `purchase` when there is one (also a rolled back one), else `refusal` is the reason."""

    key: Key
    decided_at: datetime
    purchase: Purchase | None = None
    redeemed: RedeemResult | None = None
    refusal: Reason | None = None
    replayed: bool = False
    retry_at: datetime | None = None
    """Set for TooManyAttempts, which is not recorded: from then on the request is judged."""


class PaymentEffect(StrEnum):
    """What an event of the payment processor means for a purchase."""

    PAID = "paid"
    """Session completed and paid (or nothing to pay), or an asynchronous payment succeeded."""
    PROCESSING = "processing"
    """Session completed, the payment is being processed: nothing changes yet."""
    EXPIRED = "expired"
    FAILED = "failed"
    """An asynchronous payment failed."""
    REFUNDED = "refunded"
    """This payment was refunded in full."""
    PARTLY_REFUNDED = "partly_refunded"
    """A part of this payment was refunded, or a refund of it failed: recorded."""
    DISPUTED = "disputed"
    """This payment is disputed, or its dispute has changed: recorded."""
    LOST = "lost"
    """A dispute of this payment is lost. Derived from the recorded disputes; no event has it."""
    RECOVERED = "recovered"
    """No dispute of this payment is lost. Derived, too."""
    RETURNED = "returned"
    """This payment was refunded in full, and a refund of it has failed since. Derived, too."""
    NONE = "none"
    """Stored without an effect: unknown types, payments of later months, other Sovereigns' sessions."""


@dataclass(frozen=True, slots=True)
class Payment:
    """What the payment processor reports about the payment of one checkout. None: not reported.

    `amount_minor` was paid, `refunded_minor` is the total of its refunds until now. `seen_at` is PostgreSQL's time just
    before the request to the processor: of two responses the later one counts, and a refund that fails lowers the
    amount. Without it (an event has the amount at the time when it was created) the greater amount counts.
    """

    payment_intent: str | None = None
    charge_id: str | None = None
    invoice_id: str | None = None
    amount_minor: int | None = None
    refunded_minor: int | None = None
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute of a payment, with the payment processor's values; `event_at` is the processor's time of the event.

    `amount_minor` is None where another currency is disputed than the ledger's.
    """

    dispute_id: str
    status: str
    event_at: datetime
    amount_minor: int | None = None
    reason: str | None = None
    charge_id: str | None = None
    opened: bool = False
    """Whether the event is the first one about it."""


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """One verified webhook event, or the result of a lookup of a session (`event_id` is then made of its state).

    `session_id` or `order_id` identifies the purchase. `amount_minor` is what was paid, when the event has it. With
    `lookup` it is applied each time, without it once. A refund or a dispute acts on the payment of `session_id`, or on
    the one that `payment` identifies, and never on the order alone.
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
    foreign: bool = False
    """Of another mode or account at Stripe than ours."""
    lookup: bool = False
    payment: Payment | None = None
    dispute: Dispute | None = None


class Received(StrEnum):
    """The outcome of an event; a label of the metric that counts them."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """This event id was received before; of a lookup: with the same result."""
    NO_CHANGE = "no_change"
    """The purchase had this state, or a later one, before; or the event is recorded and changes no purchase."""
    UNKNOWN = "unknown"
    """No purchase has this session or order: stored."""
    FOREIGN = "foreign"
    """Another Sovereign's, or of another mode or account at Stripe: stored."""
    MISMATCH = "mismatch"
    """Money is there that no order has a use for: another amount than is due was paid, or a rolled back order, or the
    refund of such a payment has failed. Stored, a person must check it."""


__all__ = [
    "Dispute",
    "Line",
    "Payment",
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

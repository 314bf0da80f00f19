"""Requests to the ledger and its results: plain frozen values, no SQL, no Kubernetes.

Amounts are integers of minor units of the ledger's one currency; times are aware datetimes from PostgreSQL's clock.
See also: `voucher_operator.ledger.api` takes and returns them; the services and the controllers build and read them.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason


class Outcome(StrEnum):
    """The outcome of a request to redeem."""

    REDEEMED = "redeemed"
    REFUSED = "refused"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class RedeemRequest:
    """One request to redeem a code.

    `key` is the idempotency key, `request_hash` the SHA-256 hex of the spec, `uid` the object's. A
    grant is bound to the key for ever, a refusal only to key and uid: a Redemption that is created again is judged
    again. `provisional`: do not record a refusal VoucherNotFound (the Voucher may be created soon).
    """

    key: Key
    request_hash: str
    uid: str
    code: str
    user_id: str
    tenant_id: str
    email: str
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class AttemptLimit:
    """How many wrong codes a customer may try in a namespace in how many seconds; `attempts` 0: without a limit."""

    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RedeemResult:
    """The answer. `refusal` is set when `outcome` is REFUSED; `replayed` when the ledger had the answer already.

    `retry_at` is set for TooManyAttempts, which is not recorded: from then on the request is judged.
    """

    key: Key
    outcome: Outcome
    decided_at: datetime
    refusal: Reason | None = None
    code: str | None = None
    credit_minor: int = 0
    replayed: bool = False
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyState:
    """What the ledger has of a key: the outcome of its request, with the request's hash, and the state of its order.

    As text, because a newer version may have written them.
    """

    key: str
    outcome: str | None
    request_hash: str | None
    purchase_state: str | None


class VoucherState(StrEnum):
    """The state of a voucher in the ledger, by PostgreSQL's clock."""

    ACTIVE = "Active"
    SCHEDULED = "Scheduled"
    INACTIVE = "Inactive"
    EXHAUSTED = "Exhausted"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True)
class VoucherTerms:
    """A voucher as Git declares it. `max_redemptions` 0 = no cap; `created_at` is the resource's creationTimestamp."""

    uid: str
    namespace: str
    name: str
    created_at: datetime
    generation: int
    code: str
    from_secret: bool
    credit_minor: int
    currency: str
    description: str
    active: bool
    max_redemptions: int
    valid_from: datetime | None
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class VoucherCounters:
    """The counters and the state of a voucher that has an owner."""

    uid: str
    namespace: str
    name: str
    generation: int
    times_redeemed: int
    max_redemptions: int
    granted_minor: int
    last_redeemed_at: datetime | None
    state: VoucherState
    drifted: bool


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """A moment in the life of one server: what was written after it is distinguished from what was written before."""

    server: datetime
    """When the server began."""
    xid: int
    """The lowest transaction that was running; all below it had ended."""
    at: datetime


class PutOutcome(StrEnum):
    """What `put` did to the ledger row."""

    ISSUED = "issued"
    """New, adopted from a legacy writer, or issued again after a revoke."""
    UPDATED = "updated"
    """The spec had changed."""
    DRIFT_CORRECTED = "drift_corrected"
    """The spec had not changed, the row had."""
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class VoucherOwner:
    """The Voucher resource that owns a ledger row; its `code` is set when it was read from the ledger."""

    uid: str
    namespace: str
    name: str
    code: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class UnservedNamespace:
    """A namespace that no operator serves: `vouchers` of it can be redeemed; `dropped`: this operator has served it."""

    namespace: str
    vouchers: int
    dropped: bool
    dropped_at: datetime | None = field(default=None, compare=False)
    """When this operator has first reported without it, by PostgreSQL's clock."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """`corrected` names the fields that drifted; `displaced` is the newer Voucher that lost the code to this one."""

    outcome: PutOutcome
    counters: VoucherCounters
    corrected: tuple[str, ...] = ()
    displaced: VoucherOwner | None = None


@dataclass(frozen=True, slots=True)
class LedgerInfo:
    """The ledger's identity, fixed by the first migration."""

    currency: str
    minor_digits: int
    now: datetime
    clock_offset: timedelta = timedelta()
    """PostgreSQL's clock minus this machine's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger entry of a customer: + grant, - spend or reversal."""

    id: str
    amount_minor: int
    reason: str
    order_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks an invariant; `detail` has no code that comes from a Secret."""

    invariant: str
    subject: str
    detail: str

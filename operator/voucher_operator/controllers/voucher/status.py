"""Builds a Voucher's status from the ledger's result: pure functions.

See also: `controller` and `counter_sync` use it; `resources.conditions` merges; docs/voucher.md explains the reasons.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from voucher_operator.ledger.types import VoucherCounters, VoucherState
from voucher_operator.resources import conditions
from voucher_operator.resources.conditions import Condition
from voucher_operator.resources.errors import CodeConflictError, CodeReservedError, OperatorError, TerminalError
from voucher_operator.resources.money import format_amount
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.voucher import State, Voucher, VoucherStatus

_REDEEMABLE: Final = {
    VoucherState.ACTIVE: (True, Reason.ACTIVE, "A customer can redeem it now."),
    VoucherState.SCHEDULED: (False, Reason.SCHEDULED, "The time in validFrom is not reached yet."),
    VoucherState.INACTIVE: (False, Reason.INACTIVE, "active is false: set it to true to allow redemptions."),
    VoucherState.EXHAUSTED: (False, Reason.EXHAUSTED, "maxRedemptions is reached: raise it to allow more redemptions."),
    VoucherState.EXPIRED: (
        False,
        Reason.EXPIRED,
        "The time in validUntil has passed: set a later one to allow redemptions.",
    ),
}

_NOTHING_OF_KOPF: Final = {"kopf": None}
"""kopf writes there only while a deleted Voucher waits: what another one has is somebody else's."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why the code cannot be redeemed although the Voucher's terms were not put: what Redeemable says."""

    reason: Reason
    message: str


DEACTIVATED: Final = Stopped(*_REDEEMABLE[VoucherState.INACTIVE][1:])
REVOKED: Final = Stopped(Reason.NOT_ISSUED, "The code is not in the ledger for this Voucher.")


def issued(voucher: Voucher, counters: VoucherCounters, now: datetime) -> dict[str, Any]:
    """Return the merge patch of the status of an issued Voucher; `now` is the time of conditions that change."""
    generation = voucher.metadata.generation
    holds, reason, message = _REDEEMABLE[counters.state]
    wanted = (
        *conditions.ready(Reason.ISSUED, "The voucher is in the ledger.", generation=generation),
        conditions.condition(conditions.REDEEMABLE, holds, reason, message, generation=generation),
    )
    currency = voucher.spec.credit.currency
    cap, used = counters.max_redemptions, counters.times_redeemed
    return (
        VoucherStatus(
            observed_generation=generation,
            conditions=_merged(voucher, wanted, now),
            state=State(counters.state.value),
            credit=f"{format_amount(voucher.credit_minor, currency)} {currency}",
            redeemed=f"{used}/{cap}" if cap > 0 else str(used),
            times_redeemed=used,
            remaining=max(cap - used, 0) if cap > 0 else None,
            credit_granted=format_amount(counters.granted_minor, currency),
            last_redemption_time=counters.last_redeemed_at,
        ).to_patch()
        | _NOTHING_OF_KOPF
    )


def failed(voucher: Voucher, error: OperatorError, now: datetime, stopped: Stopped | None = None) -> dict[str, Any]:
    """Return the merge patch of the status after a failure; it keeps the last known counters.

    `stopped`: it is known that nobody can redeem the code.
    """
    generation = voucher.metadata.generation
    terminal = isinstance(error, TerminalError)
    build = conditions.stalled if terminal else conditions.retrying
    wanted = (
        *build(error.reason, error.message, generation=generation),
        conditions.condition(conditions.REDEEMABLE, *_redeemable(voucher, error, stopped), generation=generation),
    )
    conflict = isinstance(error, CodeConflictError | CodeReservedError)
    last = State.INACTIVE.value if stopped else voucher.status.get("state", State.PENDING.value)
    return {
        "observedGeneration": generation,
        "conditions": list(_merged(voucher, wanted, now)),
        "state": State.CONFLICT.value if conflict else last,
    } | _NOTHING_OF_KOPF


def was_issued(previous: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these conditions say that the Voucher has been in the ledger."""
    return conditions.reason_in(previous, conditions.REDEEMABLE) not in (None, Reason.NOT_ISSUED)


def ready_reason(previous: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the reason of the condition Ready; None without this condition."""
    return conditions.reason_in(previous, conditions.READY)


def _redeemable(voucher: Voucher, error: OperatorError, stopped: Stopped | None) -> tuple[bool | None, Reason, str]:
    """Return False for a Voucher that was never issued or is stopped, and Unknown (None) for any other."""
    if isinstance(error, CodeConflictError | CodeReservedError) or "timesRedeemed" not in voucher.status:
        stopped = REVOKED
    if stopped is not None:
        return False, stopped.reason, stopped.message
    return None, error.reason, "It is unknown whether the code can be redeemed now."


def _merged(voucher: Voucher, wanted: tuple[Condition, ...], now: datetime) -> tuple[dict[str, Any], ...]:
    return tuple(conditions.merge(voucher.conditions, wanted, owned=conditions.VOUCHER_CONDITIONS, now=now))

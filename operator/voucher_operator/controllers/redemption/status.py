"""Builds a Redemption's status from the ledger's result: pure functions.

See also: `controller` uses it; `transitions` has the states; `purchase.status` does the same for an order;
`resources.conditions` merges; docs/redemption.md explains the reasons.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from voucher_operator.controllers.redemption.transitions import Cause, target
from voucher_operator.ledger.types import Outcome, RedeemResult
from voucher_operator.resources import conditions
from voucher_operator.resources.base import Status
from voucher_operator.resources.conditions import Condition
from voucher_operator.resources.errors import TerminalError, TransientError
from voucher_operator.resources.money import format_amount
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption, RedemptionStatus
from voucher_operator.services.refusals import REFUSALS

NOT_IN_LEDGER: Final = (
    "The ledger does not know this Redemption, possibly because it was restored from a backup: nothing is granted. To "
    "grant it, delete this Redemption and create it again."
)
UNDONE: Final = "The redemption was undone: create another Redemption, under another name, to redeem again."


def is_ready(voucher: Mapping[str, Any]) -> bool:
    """Whether a Voucher's status says that the ledger equals its spec."""
    status = voucher.get("status", {})
    is_ready = any(one["type"] == conditions.READY and one["status"] == "True" for one in status.get("conditions", ()))
    return is_ready and status.get("observedGeneration", -1) > 0


def waiting(redemption: Redemption, error: TransientError) -> Status:
    """Return the status while the ledger has no result because of a transient error."""
    return _undecided(
        redemption, conditions.retrying(error.reason, error.message, generation=redemption.metadata.generation)
    )


def stalled(redemption: Redemption, error: TerminalError) -> Status:
    """Return the status when the request cannot be processed as it is; it has no result and is not finished."""
    return _undecided(
        redemption, conditions.stalled(error.reason, error.message, generation=redemption.metadata.generation)
    )


def _undecided(redemption: Redemption, wanted: tuple[Condition, ...]) -> Status:
    """Report an error; the order, checkout and state of an earlier result are kept."""
    generation, now = redemption.metadata.generation, datetime.now(UTC)
    if redemption.status.get("finished"):
        return Status(observed_generation=generation, conditions=tuple(redemption.conditions))
    if redemption.status.get("orderID"):
        kept = conditions.merge(redemption.conditions, wanted, owned=conditions.OVERALL_CONDITIONS, now=now)
        return Status(observed_generation=generation, conditions=tuple(kept))
    return RedemptionStatus(
        observed_generation=generation, conditions=merged(redemption, wanted, now), state=target(Cause.WAITS)
    )


def finished(redemption: Redemption, result: RedeemResult, currency: str) -> RedemptionStatus:
    """Return the status for the ledger's result; times are the ledger's."""
    if result.outcome is Outcome.REDEEMED:
        return _redeemed(redemption, result, currency)
    if result.refusal is not None:
        return _ended(redemption, result, Cause.REFUSED, result.refusal, REFUSALS[result.refusal])
    return _ended(redemption, result, Cause.UNDONE, Reason.ROLLED_BACK, UNDONE)


def not_in_ledger(redemption: Redemption) -> RedemptionStatus:
    """Return the status of a finished Redemption of which the ledger knows nothing."""
    generation, now = redemption.metadata.generation, datetime.now(UTC)
    false = [conditions.REDEEMED] if redemption.spec.has_code else []
    false += [conditions.ORDER_PLACED] if redemption.spec.order is not None else []
    wanted = (
        *conditions.stalled(Reason.NOT_IN_LEDGER, NOT_IN_LEDGER, generation=generation),
        *(
            conditions.condition(one, False, Reason.NOT_IN_LEDGER, NOT_IN_LEDGER, generation=generation)
            for one in false
        ),
    )
    return RedemptionStatus(
        observed_generation=generation,
        conditions=merged(redemption, wanted, now),
        state=target(Cause.NOT_IN_LEDGER),
        finished=True,
        finished_at=now,
    )


def _redeemed(redemption: Redemption, result: RedeemResult, currency: str) -> RedemptionStatus:
    generation, message = redemption.metadata.generation, "The credit is on the customer's ledger."
    wanted = (
        *conditions.ready(Reason.REDEEMED, message, generation=generation),
        conditions.condition(conditions.REDEEMED, True, Reason.REDEEMED, message, generation=generation),
    )
    return RedemptionStatus(
        observed_generation=generation,
        conditions=merged(redemption, wanted, result.decided_at),
        state=target(Cause.CREDITED),
        finished=True,
        finished_at=result.decided_at,
        credit=f"{format_amount(result.credit_minor, currency)} {currency}",
        redeemed_at=result.decided_at,
    )


def _ended(
    redemption: Redemption, result: RedeemResult, cause: Cause, reason: Reason, message: str
) -> RedemptionStatus:
    generation = redemption.metadata.generation
    wanted = (
        *conditions.stalled(reason, message, generation=generation),
        conditions.condition(conditions.REDEEMED, False, reason, message, generation=generation),
    )
    return RedemptionStatus(
        observed_generation=generation,
        conditions=merged(redemption, wanted, result.decided_at),
        state=target(cause),
        finished=True,
        finished_at=result.decided_at,
    )


def merged(redemption: Redemption, wanted: tuple[Condition, ...], now: datetime) -> tuple[dict[str, Any], ...]:
    """Return the complete next list of conditions."""
    return tuple(conditions.merge(redemption.conditions, wanted, owned=conditions.REDEMPTION_CONDITIONS, now=now))

"""From a purchase to the status of its Redemption: pure functions; the states come from `transitions`.

See also: `orders` asks, `redemption_status` does the same for a Redemption without an order, `resources.conditions`
merges, docs/redemption.md explains the reasons to people.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from voucher_operator.controllers.organization import OrganizationStatus
from voucher_operator.controllers.redemption.status import merged
from voucher_operator.controllers.redemption.transitions import Cause, cause_of, target
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.resources import conditions
from voucher_operator.resources.conditions import Condition, condition
from voucher_operator.resources.errors import TransientError
from voucher_operator.resources.money import format_amount
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption, RedemptionStatus

_NUMBERS: Final = re.compile(r"[\w.:+-]*\d[\w.:+-]*")
_AGAIN: Final = "create another Redemption, under another name"
_AS_BEFORE: Final = "all is as it was before"
_KEPT: Final = "the code stays redeemed, for its credit was spent meanwhile"
_ENDED: Final[Mapping[Reason, str]] = {
    Reason.CHECKOUT_EXPIRED: f"The customer did not pay in time; the credit stays the customer's: {_AGAIN}.",
    Reason.PAYMENT_FAILED: f"The payment failed; the credit stays the customer's: {_AGAIN}.",
    Reason.REFUNDED: "The payment was refunded in full; the credit that was spent is the customer's again.",
    Reason.PAYMENT_REJECTED: f"The payment processor refused the checkout; {_AS_BEFORE}: {_AGAIN}, or ask "
    "the sovereign-admin to look at the payment processor's log.",
    Reason.PAYMENT_PROCESSOR_UNAVAILABLE: f"The checkout could not be made until the deadline; {_AS_BEFORE}: {_AGAIN}.",
    Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED: f"This Sovereign takes no cards; {_AS_BEFORE}: {_AGAIN}.",
    Reason.INVALID_ORDER: f"The order cannot be paid as it is; {_AS_BEFORE}: {_AGAIN}, with another order.",
    Reason.ABANDONED: f"The Redemption was deleted before the checkout was made; {_AS_BEFORE}: {_AGAIN}.",
}
CODE_UNDONE: Final = "The redemption was undone: the code can be redeemed again."
_UNKNOWN_END: Final = f"The order was taken back; {_AS_BEFORE}: {_AGAIN}."


def refused(redemption: Redemption, reason: Reason, message: str, at: datetime) -> RedemptionStatus:
    """Nothing was placed and nothing consumed; `at` by the ledger's clock."""
    generation = redemption.metadata.generation
    # It was tried in a transaction that was rolled back: unlike a refusal of the request, it says nothing against it.
    rolled_back = reason is Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED
    wanted = [*conditions.stalled(reason, message, generation=generation)]
    if redemption.spec.has_code:
        wanted.append(condition(conditions.REDEEMED, False, reason, message, generation=generation))
    wanted.append(condition(conditions.ORDER_PLACED, False, reason, message, generation=generation))
    return RedemptionStatus(
        observed_generation=generation,
        conditions=merged(redemption, tuple(wanted), at),
        state=target(Cause.COMPENSATED if rolled_back else Cause.REFUSED),
        finished=True,
        finished_at=at,
    )


def of(
    redemption: Redemption,
    purchase: Purchase,
    currency: str,
    *,
    waits: TransientError | None = None,
    organization: OrganizationStatus | None = None,
) -> RedemptionStatus:
    """Say how a purchase stands; `waits` is what a pending one waits for, `organization` belongs to a completed one."""
    now = datetime.now(UTC)
    organization = organization and _steady(redemption, organization)
    finished = _is_finished(purchase, organization)
    wanted = (
        *_overall(redemption, purchase, waits, organization),
        *_redeemed(redemption, purchase),
        *_order(redemption, purchase, currency),
        *_organization(redemption, organization),
    )
    granted = redemption.spec.has_code and _is_granted(purchase)
    settled = purchase.settled_at or now
    return RedemptionStatus(
        observed_generation=redemption.metadata.generation,
        conditions=merged(redemption, wanted, settled if finished else now),
        state=target(cause_of(purchase, with_code=redemption.spec.has_code)),
        finished=finished or None,
        # An Organization may have taken long: its time is over when it is ready, not when it was paid.
        finished_at=(now if organization is not None and organization.ready else settled) if finished else None,
        credit=f"{format_amount(purchase.granted_minor, currency)} {currency}" if granted else None,
        redeemed_at=purchase.placed_at if granted else None,
        order_id=purchase.order_id,
        checkout_url=purchase.checkout_url if purchase.state is PurchaseState.AWAITING_PAYMENT else None,
    )


def summary(purchase: Purchase) -> tuple[Reason, str]:
    """Say why a purchase stands where it does, for Ready and for events: one reason, one line."""
    match purchase.state:
        case PurchaseState.PENDING:
            return Reason.PLACED, "The order is placed and the credit held; the checkout is being made."
        case PurchaseState.AWAITING_PAYMENT:
            return Reason.AWAITING_PAYMENT, "The customer has to pay the rest, at status.checkoutURL."
        case PurchaseState.COMPLETED:
            return Reason.COMPLETED, "The order is paid."
        case PurchaseState.CANCELLED | PurchaseState.REFUNDED | PurchaseState.ROLLED_BACK:
            reason = purchase.reason or Reason.ROLLED_BACK
            message = _ENDED.get(reason, _UNKNOWN_END)
            return reason, message.replace(_AS_BEFORE, _KEPT) if _is_kept(purchase) else message


def matches(status: Mapping[str, Any], purchase: Purchase, *, with_code: bool) -> bool:
    """Whether a finished status tells how a purchase ended, and why."""
    told = {one.get("type"): one.get("reason") for one in status.get("conditions") or ()}
    state = target(cause_of(purchase, with_code=with_code))
    return status.get("state") == state and told.get(conditions.PAYMENT_SETTLED) == summary(purchase)[0]


def _is_kept(purchase: Purchase) -> bool:
    """Whether it was rolled back, but for the code: somebody had spent its credit."""
    return purchase.state is PurchaseState.ROLLED_BACK and purchase.redeemed


def _is_granted(purchase: Purchase) -> bool:
    """Whether what the code gave is the customer's to keep; until there is a checkout it may be taken back."""
    return purchase.state is not PurchaseState.PENDING and purchase.redeemed


def _is_finished(purchase: Purchase, organization: OrganizationStatus | None) -> bool:
    if purchase.state is PurchaseState.COMPLETED:
        return organization is not None and organization.settled
    return purchase.state not in (PurchaseState.PENDING, PurchaseState.AWAITING_PAYMENT)


def _overall(
    redemption: Redemption, purchase: Purchase, waits: TransientError | None, organization: OrganizationStatus | None
) -> tuple[Condition, ...]:
    generation = redemption.metadata.generation
    reason, message = summary(purchase)
    if purchase.state is PurchaseState.COMPLETED:
        if organization is not None and organization.settled:
            return conditions.ready(reason, message, generation=generation)
        if organization is not None:
            reason, message = organization.reason, organization.message
        told = conditions.stalled if organization is not None and organization.stuck else conditions.retrying
        return told(reason, message, generation=generation)
    if _is_finished(purchase, organization):
        return conditions.stalled(reason, message, generation=generation)
    if waits is not None:
        reason, message = waits.reason, waits.message
    # Also while the customer pays: kstatus reads InProgress, which no `wait` takes for a failure.
    return conditions.retrying(reason, message, generation=generation)


def _redeemed(redemption: Redemption, purchase: Purchase) -> tuple[Condition, ...]:
    if not redemption.spec.has_code:
        return ()
    generation = redemption.metadata.generation
    if purchase.state is PurchaseState.PENDING:
        message = "The code is redeemed with the order, and taken back with it if no checkout can be made."
        return (condition(conditions.REDEEMED, None, Reason.PLACED, message, generation=generation),)
    if not _is_granted(purchase):
        return (condition(conditions.REDEEMED, False, Reason.ROLLED_BACK, CODE_UNDONE, generation=generation),)
    message = "The credit is on the customer's ledger."
    return (condition(conditions.REDEEMED, True, Reason.REDEEMED, message, generation=generation),)


def _order(redemption: Redemption, purchase: Purchase, currency: str) -> tuple[Condition, ...]:
    generation = redemption.metadata.generation
    reason, message = summary(purchase)
    stands = purchase.state in (PurchaseState.PENDING, PurchaseState.AWAITING_PAYMENT, PurchaseState.COMPLETED)
    total, held, due = (
        f"{format_amount(minor, currency)} {currency}"
        for minor in (purchase.total_minor, purchase.held_minor, purchase.due_minor)
    )
    if stands:
        paid = "are paid" if purchase.state is PurchaseState.COMPLETED else "are to be paid"
        shares = f"Of {total}, {held} {paid} by credit and {due} by card."
        placed = condition(conditions.ORDER_PLACED, True, Reason.PLACED, shares, generation=generation)
    else:
        placed = condition(conditions.ORDER_PLACED, False, reason, message, generation=generation)
    settled = purchase.state is PurchaseState.COMPLETED
    return placed, condition(conditions.PAYMENT_SETTLED, settled, reason, message, generation=generation)


def _steady(redemption: Redemption, standing: OrganizationStatus) -> OrganizationStatus:
    """Keep the words of before where only numbers and ids in them differ: a denial may have new ones at each try."""
    before = (one for one in redemption.conditions if one.get("type") == conditions.ORGANIZATION_READY)
    told = next((str(one.get("message")) for one in before if one.get("reason") == standing.reason), "")
    same = _NUMBERS.sub("#", told) == _NUMBERS.sub("#", conditions.one_line(standing.message))
    return replace(standing, message=told) if same else standing


def _organization(redemption: Redemption, standing: OrganizationStatus | None) -> tuple[Condition, ...]:
    if standing is None:
        return ()
    generation = redemption.metadata.generation
    return (
        condition(
            conditions.ORGANIZATION_READY, standing.ready, standing.reason, standing.message, generation=generation
        ),
    )

"""Builds the status of a Redemption from its purchase: pure functions.

See also: `controller` uses it; `redemption.transitions` has the states; `redemption.status` does the same without an
order; `resources.conditions` merges; docs/redemption.md explains the reasons.
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
_UNDONE: Final = "nothing was charged and the order is undone"
_CODE_KEPT: Final = "the order is undone, but the code stays redeemed because its credit is already spent"
_MESSAGES: Final[Mapping[Reason, str]] = {
    Reason.CHECKOUT_EXPIRED: f"The customer did not pay in time. The customer keeps the credit: {_AGAIN}.",
    Reason.PAYMENT_FAILED: f"The payment failed. The customer keeps the credit: {_AGAIN}.",
    Reason.REFUNDED: "The payment was refunded in full. The customer has the spent credit again.",
    Reason.PAYMENT_LOST: "The cardholder's bank has taken the payment back. The order and its subscription have ended; "
    "its credit stays spent.",
    Reason.PAYMENT_REJECTED: f"The payment processor refused the checkout; {_UNDONE}: {_AGAIN}, or ask "
    "the sovereign-admin to check the payment processor's log.",
    Reason.PAYMENT_PROCESSOR_UNAVAILABLE: f"The checkout was not created before the deadline; {_UNDONE}: {_AGAIN}.",
    Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED: f"This Sovereign does not accept cards; {_UNDONE}: {_AGAIN}.",
    Reason.INVALID_ORDER: f"The order cannot be paid as it is; {_UNDONE}: {_AGAIN}, with another order.",
    Reason.ABANDONED: f"The Redemption was deleted before the checkout was created; {_UNDONE}: {_AGAIN}.",
}
_REINSTATED: Final = (
    "The order is paid after all: its refund failed, or its dispute was won. Its subscription has ended, and the "
    "sovereign-admin decides about the money."
)
CODE_UNDONE: Final = "The redemption was undone: the code can be redeemed again."
_UNKNOWN_END: Final = f"The order was rolled back; {_UNDONE}: {_AGAIN}."


def refused(redemption: Redemption, reason: Reason, message: str, at: datetime) -> RedemptionStatus:
    """Return the status of an order that was not placed; nothing was consumed; `at` is by the ledger's clock."""
    generation = redemption.metadata.generation
    # The transaction was tried and rolled back; unlike a refusal, this does not mean that the request is wrong.
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
    waiting_for: TransientError | None = None,
    organization: OrganizationStatus | None = None,
) -> RedemptionStatus:
    """Return the status of a purchase.

    `waiting_for` is the error that delays a pending purchase; `organization` is that of a completed one.
    """
    now = datetime.now(UTC)
    organization = organization and _with_stable_message(redemption, organization)
    finished = _is_finished(purchase, organization)
    wanted = (
        *_overall(redemption, purchase, waiting_for, organization),
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
        # With an Organization it finishes when the Organization is ready, not when the order was paid.
        finished_at=(now if organization is not None and organization.ready else settled) if finished else None,
        credit=f"{format_amount(purchase.granted_minor, currency)} {currency}" if granted else None,
        redeemed_at=purchase.placed_at if granted else None,
        order_id=purchase.order_id,
        checkout_url=purchase.checkout_url if purchase.state is PurchaseState.AWAITING_PAYMENT else None,
    )


def summary(purchase: Purchase) -> tuple[Reason, str]:
    """Return the reason and the message for the state of a purchase, for the condition Ready and for Events."""
    match purchase.state:
        case PurchaseState.PENDING:
            return Reason.PLACED, "The order is placed and the credit is held; the checkout is being created."
        case PurchaseState.AWAITING_PAYMENT:
            return Reason.AWAITING_PAYMENT, "The customer has to pay the rest, at status.checkoutURL."
        case PurchaseState.COMPLETED if purchase.reason is Reason.REINSTATED:
            return Reason.REINSTATED, _REINSTATED
        case PurchaseState.COMPLETED:
            return Reason.COMPLETED, "The order is paid."
        case _:
            reason = purchase.reason or Reason.ROLLED_BACK
            message = _MESSAGES.get(reason, _UNKNOWN_END)
            return reason, message.replace(_UNDONE, _CODE_KEPT) if _is_code_kept(purchase) else message


def matches(status: Mapping[str, Any], purchase: Purchase, *, with_code: bool) -> bool:
    """Whether a finished status has the final state of a purchase, and its reason."""
    reasons = {one.get("type"): one.get("reason") for one in status.get("conditions") or ()}
    state = target(cause_of(purchase, with_code=with_code))
    return status.get("state") == state and reasons.get(conditions.PAYMENT_SETTLED) == summary(purchase)[0]


def _is_code_kept(purchase: Purchase) -> bool:
    """Whether the order was rolled back without the redemption, because its credit was spent."""
    return purchase.state is PurchaseState.ROLLED_BACK and purchase.redeemed


def _is_granted(purchase: Purchase) -> bool:
    """Whether the customer keeps the code's credit; until there is a checkout it may be rolled back."""
    return purchase.state is not PurchaseState.PENDING and purchase.redeemed


def _is_finished(purchase: Purchase, organization: OrganizationStatus | None) -> bool:
    if purchase.state is PurchaseState.COMPLETED:
        return organization is not None and organization.settled
    return purchase.state not in (PurchaseState.PENDING, PurchaseState.AWAITING_PAYMENT)


def _overall(
    redemption: Redemption,
    purchase: Purchase,
    waiting_for: TransientError | None,
    organization: OrganizationStatus | None,
) -> tuple[Condition, ...]:
    generation = redemption.metadata.generation
    reason, message = summary(purchase)
    if purchase.state is PurchaseState.COMPLETED:
        if organization is not None and organization.settled:
            return conditions.ready(reason, message, generation=generation)
        if organization is not None:
            reason, message = organization.reason, organization.message
        build = conditions.stalled if organization is not None and organization.stalled else conditions.retrying
        return build(reason, message, generation=generation)
    if _is_finished(purchase, organization):
        return conditions.stalled(reason, message, generation=generation)
    if waiting_for is not None:
        reason, message = waiting_for.reason, waiting_for.message
    # Also while the customer pays: kstatus reads this as InProgress, which is not a failure.
    return conditions.retrying(reason, message, generation=generation)


def _redeemed(redemption: Redemption, purchase: Purchase) -> tuple[Condition, ...]:
    if not redemption.spec.has_code:
        return ()
    generation = redemption.metadata.generation
    if purchase.state is PurchaseState.PENDING:
        message = "The code is redeemed with the order, and undone with it if no checkout can be created."
        return (condition(conditions.REDEEMED, None, Reason.PLACED, message, generation=generation),)
    if not _is_granted(purchase):
        return (condition(conditions.REDEEMED, False, Reason.ROLLED_BACK, CODE_UNDONE, generation=generation),)
    message = "The credit is on the customer's ledger."
    return (condition(conditions.REDEEMED, True, Reason.REDEEMED, message, generation=generation),)


def _order(redemption: Redemption, purchase: Purchase, currency: str) -> tuple[Condition, ...]:
    generation = redemption.metadata.generation
    reason, message = summary(purchase)
    is_placed = purchase.state in (PurchaseState.PENDING, PurchaseState.AWAITING_PAYMENT, PurchaseState.COMPLETED)
    total, held, due = (
        f"{format_amount(minor, currency)} {currency}"
        for minor in (purchase.total_minor, purchase.held_minor, purchase.due_minor)
    )
    if is_placed:
        paid = "are paid" if purchase.state is PurchaseState.COMPLETED else "are to be paid"
        shares = f"Of {total}, {held} {paid} by credit and {due} by card."
        placed = condition(conditions.ORDER_PLACED, True, Reason.PLACED, shares, generation=generation)
    else:
        placed = condition(conditions.ORDER_PLACED, False, reason, message, generation=generation)
    settled = purchase.state is PurchaseState.COMPLETED
    return placed, condition(conditions.PAYMENT_SETTLED, settled, reason, message, generation=generation)


def _with_stable_message(redemption: Redemption, status: OrganizationStatus) -> OrganizationStatus:
    """Keep the previous message when only numbers and ids differ: a denial may have new ones at each attempt."""
    before = (one for one in redemption.conditions if one.get("type") == conditions.ORGANIZATION_READY)
    previous = next((str(one.get("message")) for one in before if one.get("reason") == status.reason), "")
    same = _NUMBERS.sub("#", previous) == _NUMBERS.sub("#", conditions.one_line(status.message))
    return replace(status, message=previous) if same else status


def _organization(redemption: Redemption, status: OrganizationStatus | None) -> tuple[Condition, ...]:
    if status is None:
        return ()
    generation = redemption.metadata.generation
    return (
        condition(conditions.ORGANIZATION_READY, status.ready, status.reason, status.message, generation=generation),
    )

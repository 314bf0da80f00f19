"""What people read when a code or an order is refused: one sentence for each reason, whichever door they came through.

See also: `resources.reasons` names the reasons; docs/redemption.md explains them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from voucher_operator.resources.reasons import Reason

REFUSALS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.VOUCHER_NOT_FOUND: "This code is not valid: check it, then create the Redemption again.",
        Reason.VOUCHER_INACTIVE: "Redemptions of this voucher are stopped: ask who issued it.",
        Reason.VOUCHER_NOT_YET_VALID: "This voucher is not valid yet: create the Redemption again from validFrom on.",
        Reason.VOUCHER_EXPIRED: "This voucher has expired: ask who issued it for another one.",
        Reason.REDEMPTION_LIMIT_REACHED: "This voucher is used up: ask who issued it for another one.",
        Reason.ALREADY_REDEEMED: "This customer has redeemed this voucher before: use another voucher.",
        Reason.IDEMPOTENCY_CONFLICT: "A Redemption of this name was redeemed with another spec: use another name.",
    }
)
"""Of a code alone."""

ORDER_REFUSALS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        **REFUSALS,
        Reason.INVALID_ORDER: "The order cannot be bought as it is: choose from the catalog, and create it again.",
        Reason.CURRENCY_MISMATCH: "The code was issued in another currency than the plan's: use another code.",
        Reason.CUSTOMER_MISMATCH: "customer.tenantID is not the tenant that the ledger has for this user: nothing was "
        "used up; order for that tenant, for while the user has credit, no other tenant's order is taken.",
        Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED: "The credit does not cover the order and this Sovereign takes no "
        "cards: nothing was used up; create the Redemption again with more credit, or once cards are taken.",
    }
)
"""Why nothing was placed. The causes of those not in REFUSALS may pass, and nothing is consumed by any."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that was not placed: nothing was consumed. `decided_at` is by PostgreSQL's clock."""

    reason: Reason
    message: str
    decided_at: datetime
    provisional: bool = False
    """Not recorded: the Voucher of this code may be on its way."""

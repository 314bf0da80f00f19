"""The messages of refusals: one for each reason, the same for a Redemption and for HTTP.

See also: `resources.reasons` names the reasons; docs/redemption.md explains them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from voucher_operator import telemetry
from voucher_operator.resources.conditions import format_time
from voucher_operator.resources.errors import TooManyAttemptsError
from voucher_operator.resources.reasons import Reason

REFUSALS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.VOUCHER_NOT_FOUND: "This code is not valid: check the code, then create the Redemption again.",
        Reason.VOUCHER_INACTIVE: "This voucher is inactive: ask its issuer.",
        Reason.VOUCHER_NOT_YET_VALID: "This voucher is not valid yet: create the Redemption again from validFrom on.",
        Reason.VOUCHER_EXPIRED: "This voucher has expired: ask its issuer for another one.",
        Reason.REDEMPTION_LIMIT_REACHED: "This voucher has reached its redemption limit: use another voucher.",
        Reason.ALREADY_REDEEMED: "This customer has already redeemed this voucher: use another voucher.",
        Reason.IDEMPOTENCY_CONFLICT: "A Redemption of this name was redeemed with another spec: use another name.",
    }
)
"""Refusals of a code."""

ORDER_REFUSALS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        **REFUSALS,
        Reason.INVALID_ORDER: "The order is invalid: choose from the catalog, then create the Redemption again.",
        Reason.CURRENCY_MISMATCH: "The code and the plan have different currencies: use another code.",
        Reason.CUSTOMER_MISMATCH: "customer.tenantID is not the tenant that the ledger has for this user. Nothing was "
        "redeemed. Order for that tenant: while the user has credit, orders for another tenant are refused.",
        Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED: "The credit does not cover the order, and this Sovereign does not "
        "accept cards. Nothing was redeemed. Create the Redemption again with more credit, or when cards are accepted.",
    }
)
"""Refusals of an order; nothing is consumed. The causes of those not in REFUSALS may be temporary."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that was not placed: nothing was consumed. `decided_at` is by PostgreSQL's clock."""

    reason: Reason
    message: str
    decided_at: datetime
    provisional: bool = False
    """Not recorded: the Voucher of this code may still arrive."""


def too_many_attempts(decided_at: datetime, retry_at: datetime) -> TooManyAttemptsError:
    """Count, and return the error for a customer who has tried too many wrong codes; both times are PostgreSQL's."""
    telemetry.ATTEMPTS_LIMITED.inc()
    return TooManyAttemptsError(
        f"This customer has tried too many wrong codes: their codes are tried again at {format_time(retry_at)}.",
        (retry_at - decided_at).total_seconds(),
    )

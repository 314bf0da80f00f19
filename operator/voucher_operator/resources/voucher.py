"""Voucher: what a sovereign-admin commits, as frozen models of spec and status.

See also: `crds/vouchers.billing.openova.io.yaml` has the same fields (a test compares them); `money` parses its credit;
`services.issue` puts it into the ledger; docs/voucher.md explains it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from voucher_operator.resources.base import CodeFrom, Model, Resource, Status
from voucher_operator.resources.money import MAX_WHOLE_UNITS, parse_amount

_AMOUNT = r"^((0|[1-9][0-9]{0,8})(\.[0-9]{1,4})?|1000000000(\.0{1,4})?)$"
Amount = (
    Annotated[int, Field(strict=True, ge=1, le=MAX_WHOLE_UNITS)]
    | Annotated[str, Field(strict=True, max_length=20, pattern=_AMOUNT)]
)


class State(StrEnum):
    """A voucher in one word, for people."""

    PENDING = "Pending"
    ACTIVE = "Active"
    SCHEDULED = "Scheduled"
    INACTIVE = "Inactive"
    EXHAUSTED = "Exhausted"
    EXPIRED = "Expired"
    CONFLICT = "Conflict"


class Credit(Model):
    """The credit of one redemption: a decimal of major units."""

    amount: Amount
    currency: Annotated[str, Field(min_length=3, max_length=3, pattern=r"^[A-Z]{3}$")]

    @model_validator(mode="after")
    def _is_money(self) -> Self:
        parse_amount(self.amount, self.currency)
        return self

    @property
    def minor(self) -> int:
        """The amount in minor units."""
        return parse_amount(self.amount, self.currency)


class VoucherSpec(Model):
    """The terms of a voucher, from Git."""

    code: Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[A-Z0-9-]{3,64}$")] | None = None
    code_from: CodeFrom | None = None
    credit: Credit
    description: Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""
    active: bool = True
    max_redemptions: Annotated[int, Field(ge=0, le=2147483647)] = 0
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.code is None) == (self.code_from is None):
            raise ValueError("a Voucher must have exactly one of code and codeFrom")
        if self.valid_from and self.valid_until and self.valid_until < self.valid_from:
            raise ValueError("validUntil is before validFrom")
        return self


class VoucherStatus(Status):
    """State and counters of a voucher in the ledger; see the CRD."""

    state: State | None = None
    credit: Annotated[str, Field(max_length=32)] | None = None
    redeemed: Annotated[str, Field(max_length=32)] | None = None
    times_redeemed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    remaining: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    credit_granted: Annotated[str, Field(max_length=32, pattern=r"^-?[0-9]{1,20}(\.[0-9]{1,4})?$")] | None = None
    last_redemption_time: datetime | None = None


class Voucher(Resource):
    """A Voucher resource."""

    spec: VoucherSpec

    @property
    def from_secret(self) -> bool:
        """Whether the code is in a Secret; then it must not appear anywhere else."""
        return self.spec.code_from is not None

    @property
    def credit_minor(self) -> int:
        """The credit of one redemption, in minor units."""
        return self.spec.credit.minor

"""Redemption: one customer's request to redeem one code, as frozen models of spec and status.

Neighbours: `crds/redemptions.billing.openova.io.yaml` says the same to the API server (a test compares them field by
field), `controllers.redemptions` asks the ledger, docs/redemption.md explains it to people.
"""

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from voucher_operator.resources.base import CodeFrom, Model, ObjectName, Resource, Status

_TRIMMED = r"^[^\x00-\x20\x7f-\xa0]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0])?$"


class State(StrEnum):
    """A Redemption in one word, for people."""

    PENDING = "Pending"
    REDEEMED = "Redeemed"
    AWAITING_PAYMENT = "AwaitingPayment"
    COMPLETED = "Completed"
    REJECTED = "Rejected"
    ROLLED_BACK = "RolledBack"


class Customer(Model):
    """Who gets the credit."""

    user_id: Annotated[str, Field(alias="userID", min_length=1, max_length=256, pattern=_TRIMMED)]
    tenant_id: Annotated[str, Field(alias="tenantID", min_length=1, max_length=253, pattern=_TRIMMED)]
    email: Annotated[
        str, Field(min_length=3, max_length=254, pattern=r"^[^@\x00-\x20\x7f-\xa0]+@[^@\x00-\x20\x7f-\xa0]+$")
    ]


class VoucherRef(Model):
    """A Voucher in the Redemption's namespace."""

    name: ObjectName


class RedemptionSpec(Model):
    """Who redeems what; immutable."""

    code: Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[A-Za-z0-9-]{3,64}$")] | None = None
    code_from: CodeFrom | None = None
    voucher_ref: VoucherRef | None = None
    customer: Customer
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2147483647)] | None = None

    @model_validator(mode="after")
    def _names_one_code(self) -> Self:
        if sum(source is not None for source in (self.code, self.code_from, self.voucher_ref)) != 1:
            raise ValueError("a Redemption must have exactly one of code, codeFrom and voucherRef")
        return self


class RedemptionStatus(Status):
    """What the ledger answered."""

    state: State | None = None
    finished: bool | None = None
    finished_at: datetime | None = None
    credit: Annotated[str, Field(max_length=32)] | None = None
    redeemed_at: datetime | None = None


class Redemption(Resource):
    """A Redemption resource; `key` is its idempotency key."""

    spec: RedemptionSpec

    def request_hash(self) -> str:
        """SHA-256, in hex, of what is asked for: canonical JSON of the spec without ttlSecondsAfterFinished."""
        asked = self.spec.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"ttl_seconds_after_finished"}
        )
        text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

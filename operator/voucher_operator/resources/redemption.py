"""Redemption: one customer's request to redeem one code, to buy something, or both, as frozen models.

See also: `crds/redemptions.billing.openova.io.yaml` has the same fields (a test compares them);
`controllers.redemption.controller` reconciles it; docs/redemption.md explains it.
"""

import hashlib
import json
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from voucher_operator.resources.base import CodeFrom, Model, ObjectName, Resource, Status
from voucher_operator.resources.keys import Key
from voucher_operator.resources.slugs import SLUG, is_reserved

_TRIMMED = r"^[^\x00-\x20\x7f-\xa0]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0])?$"

CatalogID = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][-._A-Za-z0-9]{0,63}$")]
CatalogIDs = Annotated[tuple[CatalogID, ...], Field(max_length=50)]


class State(StrEnum):
    """A Redemption in one word, for people."""

    PENDING = "Pending"
    REDEEMED = "Redeemed"
    AWAITING_PAYMENT = "AwaitingPayment"
    COMPLETED = "Completed"
    REJECTED = "Rejected"
    ROLLED_BACK = "RolledBack"


class Customer(Model):
    """The customer who gets the credit."""

    user_id: Annotated[str, Field(alias="userID", min_length=1, max_length=256, pattern=_TRIMMED)]
    tenant_id: Annotated[str, Field(alias="tenantID", min_length=1, max_length=253, pattern=_TRIMMED)]
    email: Annotated[
        str, Field(min_length=3, max_length=254, pattern=r"^[^@\x00-\x20\x7f-\xa0]+@[^@\x00-\x20\x7f-\xa0]+$")
    ]


class VoucherRef(Model):
    """A Voucher in the Redemption's namespace."""

    name: ObjectName


class Order(Model):
    """An order: a plan, with apps and add-ons, for an Organization."""

    plan_id: Annotated[CatalogID, Field(alias="planID")]
    apps: CatalogIDs = ()
    addons: CatalogIDs = ()
    subdomain: Annotated[str, Field(min_length=3, max_length=31, pattern=SLUG)] | None = None
    payment_deadline_seconds: Annotated[int, Field(ge=1, le=43200)] | None = None

    @model_validator(mode="after")
    def _can_be_provisioned(self) -> Self:
        if len(set(self.apps)) != len(self.apps) or len(set(self.addons)) != len(self.addons):
            raise ValueError("an app or add-on is listed twice")
        if self.subdomain is not None and is_reserved(self.subdomain):
            raise ValueError("subdomain is reserved")
        return self


class RedemptionSpec(Model):
    """The code, the customer and the order; immutable."""

    code: Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[A-Za-z0-9-]{3,64}$")] | None = None
    code_from: CodeFrom | None = None
    voucher_ref: VoucherRef | None = None
    customer: Customer
    order: Order | None = None
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2147483647)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        codes = sum(source is not None for source in (self.code, self.code_from, self.voucher_ref))
        if codes > 1 or (codes == 0 and self.order is None):
            raise ValueError("a Redemption must have exactly one of code, codeFrom and voucherRef, or an order")
        if self.order is not None and (not re.fullmatch(SLUG, self.subdomain) or is_reserved(self.subdomain)):
            raise ValueError("customer.tenantID cannot be a subdomain: order.subdomain is needed")
        return self

    @property
    def has_code(self) -> bool:
        """Whether it redeems a code; an order can also be paid from the balance alone."""
        return self.code is not None or self.code_from is not None or self.voucher_ref is not None

    @property
    def subdomain(self) -> str:
        """The subdomain and slug of the Organization."""
        given = self.order.subdomain if self.order is not None else None
        return given or self.customer.tenant_id


class RedemptionStatus(Status):
    """The ledger's result."""

    state: State | None = None
    finished: bool | None = None
    finished_at: datetime | None = None
    credit: Annotated[str, Field(max_length=32)] | None = None
    redeemed_at: datetime | None = None
    order_id: Annotated[Annotated[str, Field(max_length=64)] | None, Field(alias="orderID")] = None
    checkout_url: Annotated[Annotated[str, Field(max_length=4096)] | None, Field(alias="checkoutURL")] = None


class Redemption(Resource):
    """A Redemption resource; `key` is its idempotency key."""

    spec: RedemptionSpec

    @property
    def key(self) -> Key:
        """Its idempotency key."""
        return Key.of_redemption(self.metadata.namespace, self.metadata.name)

    def request_hash(self) -> str:
        """Return the SHA-256, in hex, of the canonical JSON of the spec without ttlSecondsAfterFinished."""
        content = self.spec.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"ttl_seconds_after_finished"}
        )
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

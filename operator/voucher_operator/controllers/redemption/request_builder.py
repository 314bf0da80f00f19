"""Builds the ledger's request from a Redemption: finds the code, and decides whether its Voucher may still arrive.

See also: `controller`, here and in `purchase`, sends the request; `backpressure` delays it; `services.code_index` has
the code of each Voucher.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.controllers.secret_codes import SecretCodes
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body
from voucher_operator.kube.shared_reads import SharedReads
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import RedeemRequest
from voucher_operator.resources import conditions
from voucher_operator.resources.base import CodeFrom, SecretKeyRef
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import (
    InvalidCodeError,
    SecretNotFoundError,
    SecretUnreadableError,
    TransientError,
    VoucherNotReadyError,
)
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption
from voucher_operator.services.code_index import CodeIndex

NO_CODE: Final = ""
"""The code of a request without one: the ledger finds no voucher for it, and records that."""


class DeletedError(Exception):
    """The Redemption was deleted, or its deletion has begun, before the request was sent: it gets no result."""


@dataclass(slots=True)
class RequestBuilder:
    """Builds requests."""

    references: SharedReads
    """Reads of Vouchers that the watch has not shown."""
    secrets: SecretCodes
    cache: Cache
    vouchers: Cache
    codes: CodeIndex
    grace: float
    """Seconds for which a Redemption with an unknown code waits for the Voucher."""
    backpressure: Backpressure
    health: LedgerHealth
    _first_missed: dict[str, float] = field(default_factory=dict)

    async def build(self, redemption: Redemption) -> RedeemRequest:
        """Build the request, and wait as `Backpressure.wait`; its code is NO_CODE for an order without a code.

        Raises DeletedError, LedgerUnavailableError, SecretNotFoundError, SecretUnreadableError, VoucherNotReadyError.
        """
        self.health.check()
        code = await self._code(redemption)
        customer = redemption.spec.customer
        request = RedeemRequest(
            key=redemption.key,
            request_hash=redemption.request_hash(),
            uid=redemption.metadata.uid,
            code=code,
            user_id=customer.user_id,
            tenant_id=customer.tenant_id,
            email=customer.email,
            provisional=self._is_provisional(redemption.key),
        )
        self.health.check()
        await self.backpressure.wait((redemption.metadata.namespace, customer.user_id))
        if self.is_deleted(redemption):
            raise DeletedError
        return request

    def is_deleted(self, redemption: Redemption) -> bool:
        """Whether it is deleted, or its deletion has begun, as far as the watch has shown.

        A finalizer of another controller may keep it for a long time: it must not be redeemed any more.
        """
        body = self.cache.get(redemption.key)
        return body is None or redemption.deleted or "deletionTimestamp" in body["metadata"]

    def missed(self, key: Key) -> VoucherNotReadyError:
        """Record when the ledger first did not know the code, and return the error: the Voucher may still arrive."""
        self._first_missed.setdefault(key, asyncio.get_running_loop().time())
        return VoucherNotReadyError(
            "No voucher has this code yet: the Redemption is refused if none is issued within seconds."
        )

    async def is_mismatched(self, redemption: Redemption) -> bool:
        """Whether its Voucher has another currency than the ledger, and so is never issued.

        False when a Secret that is needed to decide this cannot be read.
        """
        spec, namespace = redemption.spec, redemption.metadata.namespace
        if spec.voucher_ref is not None:
            body = self.vouchers.get(f"{namespace}/{spec.voucher_ref.name}")
            return body is not None and _is_mismatched(body)
        try:
            code = normal_code(await self._code(redemption))
        except TransientError:
            return False
        foreign = [body for key in self.vouchers if (body := self.vouchers.get(key)) and _is_mismatched(body)]
        return bool(code) and any([await self._code_of(body) == code for body in foreign])

    def forget(self, key: str) -> None:
        """Drop what is stored for a Redemption that has a result or is deleted."""
        self._first_missed.pop(key, None)

    async def _code_of(self, voucher: Body) -> str:
        """Return the code in a Voucher's spec; NO_CODE when its Secret cannot be read."""
        spec, namespace = voucher["spec"], voucher["metadata"]["namespace"]
        if "codeFrom" not in spec:
            return normal_code(spec.get("code", ""))
        try:
            return await self._secret_code(namespace, CodeFrom.model_validate(spec["codeFrom"]).secret_key_ref)
        except (SecretNotFoundError, SecretUnreadableError):
            return NO_CODE

    def _is_provisional(self, key: Key) -> bool:
        """Whether a Voucher applied together with it may still arrive; by this process' monotonic clock.

        The time starts when the ledger first did not know the code: while the ledger was unavailable, the Voucher could
        not be issued either.
        """
        now = asyncio.get_running_loop().time()
        return now - self._first_missed.get(key, now) < self.grace

    async def _code(self, redemption: Redemption) -> str:
        """Return the code to redeem; raises SecretNotFoundError, SecretUnreadableError, VoucherNotReadyError."""
        spec, namespace = redemption.spec, redemption.metadata.namespace
        if spec.code is not None:
            return spec.code
        if spec.code_from is not None:
            return await self._secret_code(namespace, spec.code_from.secret_key_ref, spec.customer.user_id)
        if spec.voucher_ref is not None:
            return await self._referred(namespace, spec.voucher_ref.name, spec.customer.user_id)
        return NO_CODE

    async def _secret_code(self, namespace: str, ref: SecretKeyRef, customer: str = "") -> str:
        """Return a Secret's code; an invalid value becomes NO_CODE, which is refused like an unknown code."""
        try:
            return await self.secrets.read(namespace, ref, customer)
        except InvalidCodeError:
            return NO_CODE

    async def _referred(self, namespace: str, name: str, customer: str) -> str:
        """Return the code of a Voucher; raises VoucherNotReadyError until the ledger has it for this uid."""
        body = self.vouchers.get(f"{namespace}/{name}")
        if body is None:
            # Not a remembered absence: a Voucher that was created a moment ago must be found.
            body = await self.references.read(VOUCHER.path(namespace, name), (namespace, customer), fresh=True)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return NO_CODE
        # The value in its Secret may now be another Voucher's code: only the code in the ledger counts.
        code = self.codes.code_of(body["metadata"]["uid"])
        if code is None or not redemption_status.is_ready(body):
            raise VoucherNotReadyError(f"Voucher {name} is not in the ledger: see its conditions.")
        return code


def _is_mismatched(voucher: Body) -> bool:
    found = voucher["status"].get("conditions", ())
    return any(one["type"] == conditions.READY and one["reason"] == Reason.CURRENCY_MISMATCH for one in found)

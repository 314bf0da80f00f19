"""From a Redemption to what the ledger is asked: which code is meant, and whether its Voucher may still be on its way.

See also: the controllers of `redemption` and `purchase` ask with it; `backpressure` lets requests gather;
`services.code_index` knows what the ledger holds for a Voucher.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.controllers.secret_codes import SecretCodes
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body, KubeApi
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
"""What the ledger is asked for where there is no code: it finds none, and remembers that."""


class GoneError(Exception):
    """The Redemption is deleted, or its deletion has begun, before the ledger was asked: it is not answered."""


@dataclass(slots=True)
class RequestBuilder:
    """Builds requests."""

    api: KubeApi
    secrets: SecretCodes
    cache: Cache
    vouchers: Cache
    codes: CodeIndex
    grace: float
    """Seconds that an unknown code gets for its Voucher to arrive."""
    backpressure: Backpressure
    health: LedgerHealth
    _first_missed: dict[str, float] = field(default_factory=dict)

    async def build(self, redemption: Redemption) -> RedeemRequest:
        """Return the request when its turn has come; without a code when only something is bought.

        Raises GoneError, LedgerUnavailableError, SecretNotFoundError, SecretUnreadableError and VoucherNotReadyError.
        """
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
        await self.backpressure.wait()
        if self.is_deleted(redemption):
            raise GoneError
        return request

    def is_deleted(self, redemption: Redemption) -> bool:
        """Whether it is gone, or its deletion has begun, by what the watch has shown until now.

        Somebody else's finalizer may keep it for long: it must not be redeemed any more.
        """
        body = self.cache.get(redemption.key)
        return body is None or redemption.deleted or "deletionTimestamp" in body["metadata"]

    def missed(self, key: Key) -> VoucherNotReadyError:
        """Note that the ledger does not know the code, and return the error: its Voucher may still be on its way."""
        self._first_missed.setdefault(key, asyncio.get_running_loop().time())
        return VoucherNotReadyError("No voucher has this code: it is refused unless one comes within seconds.")

    async def is_mismatched(self, redemption: Redemption) -> bool:
        """Whether its Voucher was issued in another currency than the ledger's, and so never gets there.

        No, when a Secret that would tell cannot be read.
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
        """It is answered, or gone."""
        self._first_missed.pop(key, None)

    async def _code_of(self, voucher: Body) -> str:
        """Return the code that a Voucher of another currency would have; "" when that cannot be read."""
        spec, namespace = voucher["spec"], voucher["metadata"]["namespace"]
        if "codeFrom" not in spec:
            return normal_code(spec.get("code", ""))
        try:
            return await self._secret_code(namespace, CodeFrom.model_validate(spec["codeFrom"]).secret_key_ref)
        except (SecretNotFoundError, SecretUnreadableError):
            return NO_CODE

    def _is_provisional(self, key: Key) -> bool:
        """Whether a Voucher applied together with it may still be on its way; by this process' monotonic clock.

        Counted from when the ledger first missed the code: while it was away, the Voucher could not come either.
        """
        now = asyncio.get_running_loop().time()
        return now - self._first_missed.get(key, now) < self.grace

    async def _code(self, redemption: Redemption) -> str:
        """Return the code to redeem; raises SecretNotFoundError, SecretUnreadableError, VoucherNotReadyError."""
        spec, namespace = redemption.spec, redemption.metadata.namespace
        if spec.code is not None:
            return spec.code
        if spec.code_from is not None:
            return await self._secret_code(namespace, spec.code_from.secret_key_ref)
        if spec.voucher_ref is not None:
            return await self._referred(namespace, spec.voucher_ref.name)
        return NO_CODE

    async def _secret_code(self, namespace: str, ref: SecretKeyRef) -> str:
        """Return a Secret's code; what is no code cannot be a voucher's, and is refused like any unknown one."""
        try:
            return await self.secrets.read(namespace, ref)
        except InvalidCodeError:
            return NO_CODE

    async def _referred(self, namespace: str, name: str) -> str:
        """Return the code of a Voucher; raises VoucherNotReadyError until the ledger holds it for that very Voucher."""
        body = self.vouchers.get(f"{namespace}/{name}") or await self.api.get(VOUCHER, namespace, name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return NO_CODE
        # What its Secret holds at this moment may be another Voucher's code: only what the ledger holds for it counts.
        code = self.codes.code_of(body["metadata"]["uid"])
        if code is None or not redemption_status.is_ready(body):
            raise VoucherNotReadyError(f"Voucher {name} is not in the ledger: see its conditions.")
        return code


def _is_mismatched(voucher: Body) -> bool:
    found = voucher["status"].get("conditions", ())
    return any(one["type"] == conditions.READY and one["reason"] == Reason.CURRENCY_MISMATCH for one in found)

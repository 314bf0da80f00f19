"""Redemption: ask the ledger once, and write its answer as the one status patch of a finished Redemption.

The ledger answers the same key alike for ever, so whatever dies between its commit and the patch is mended by asking
again. Neighbours: `queue` calls `reconcile`, `pace` lets requests gather, `writer` patches, `projection` takes the
`hints`; `redemption_status` words the answer.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from voucher_operator import telemetry
from voucher_operator.controllers import kube, redemption_status
from voucher_operator.controllers.cache import Cache
from voucher_operator.controllers.events import Recorder
from voucher_operator.controllers.kube import Body, KubeApi
from voucher_operator.controllers.outage import Outage
from voucher_operator.controllers.pace import Pace
from voucher_operator.controllers.queue import Result
from voucher_operator.controllers.writer import StatusWriter
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import LedgerInfo, Outcome, RedeemRequest, RedeemResult
from voucher_operator.resources import conditions
from voucher_operator.resources.codes import normal_code, validate_code
from voucher_operator.resources.errors import (
    InvalidCodeError,
    InvalidSpecError,
    TerminalError,
    TransientError,
    VoucherNotReadyError,
)
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption

_NO_CODE = ""
"""What the ledger is asked for where there is no code: it finds none, and remembers that."""


@dataclass(slots=True)
class RedemptionController:
    """Reconciles Redemptions. `hints` collects the uids of vouchers whose counters have just moved."""

    ledger: Ledger
    api: KubeApi
    recorder: Recorder
    cache: Cache
    vouchers: Cache
    owners: dict[str, str]
    """uids of the Vouchers that own the codes (normal form) that this process has put into the ledger."""
    grace: float
    """Seconds that an unknown code gets for its Voucher to arrive."""
    pace: Pace
    outage: Outage
    hints: set[str] = field(default_factory=set)
    _first_missed: dict[str, float] = field(default_factory=dict)
    _info: LedgerInfo | None = None

    async def reconcile(self, key: str) -> Result:
        """Bring one Redemption to its end; raises what may pass and could not be told."""
        body = self.cache.get(key)
        if body is None or body["status"].get("finished"):
            return self._forget(key)
        try:
            redemption = _parse(body)
        except InvalidSpecError as error:
            written = await self._writer.write_invalid(key, body, error, conditions.REDEMPTION_CONDITIONS)
            return Result.DONE if written else Result.NOW
        try:
            result = await self._redeem(redemption)
        except TransientError as error:
            waiting = redemption_status.waiting(redemption, error).to_patch()
            return Result.AGAIN if await self._write(key, body, waiting) else Result.NOW
        except TerminalError as error:
            stalled = redemption_status.stalled(redemption, error).to_patch()
            return Result.DONE if await self._write(key, body, stalled) else Result.NOW
        return await self._finish(key, body, redemption, result)

    @property
    def _writer(self) -> StatusWriter:
        return StatusWriter(self.api, kube.REDEMPTIONS, "Redemption", self.cache)

    async def _redeem(self, redemption: Redemption) -> RedeemResult:
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
            provisional=self._is_young(redemption),
        )
        self.outage.check()
        await self.pace.ask()
        result = await self.ledger.redeem(request)
        if result.refusal is Reason.VOUCHER_NOT_FOUND and request.provisional:
            self._first_missed.setdefault(redemption.key, asyncio.get_running_loop().time())
            raise VoucherNotReadyError("No voucher has this code: it is refused unless one comes within seconds.")
        if result.outcome is Outcome.REDEEMED and (owner := self.owners.get(normal_code(code))) is not None:
            self.hints.add(owner)
        return result

    def _is_young(self, redemption: Redemption) -> bool:
        """Whether a Voucher applied together with it may still be on its way; by this process' monotonic clock.

        Counted from when the ledger first missed the code: while it was away, the Voucher could not come either.
        """
        now = asyncio.get_running_loop().time()
        return now - self._first_missed.get(redemption.key, now) < self.grace

    async def _code(self, redemption: Redemption) -> str:
        """Return the code to redeem; raises SecretNotFoundError, SecretUnreadableError, VoucherNotReadyError."""
        spec, namespace = redemption.spec, redemption.metadata.namespace
        if spec.code is not None:
            return spec.code
        if spec.code_from is not None:
            ref = spec.code_from.secret_key_ref
            return await self._secret_code(namespace, ref.name, ref.key)
        assert spec.voucher_ref is not None  # noqa: S101 - the model holds that exactly one is given
        return await self._referred(f"{namespace}/{spec.voucher_ref.name}")

    async def _secret_code(self, namespace: str, name: str, key: str) -> str:
        """Return a Secret's code; what is no code cannot be a voucher's, and is refused like any unknown one."""
        try:
            return validate_code(await self.api.secret_value(namespace, name, key))
        except InvalidCodeError:
            return _NO_CODE

    async def _referred(self, key: str) -> str:
        """Return the code of a Voucher; raises VoucherNotReadyError until the ledger holds it for that very Voucher."""
        namespace, name = key.split("/")
        body = self.vouchers.get(key) or await self.api.get(kube.VOUCHERS, namespace, name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return _NO_CODE
        if not redemption_status.is_ready(body):
            raise VoucherNotReadyError(f"Voucher {name} is not in the ledger: see its conditions.")
        spec = body["spec"]
        if "code" in spec:
            return str(spec["code"])
        ref = spec["codeFrom"]["secretKeyRef"]
        return await self._secret_code(namespace, ref["name"], ref["key"])

    async def _finish(self, key: str, body: Body, redemption: Redemption, result: RedeemResult) -> Result:
        status = redemption_status.finished(redemption, result, await self._currency())
        if not await self._write(key, body, status.to_patch()):
            return Result.NOW
        telemetry.REDEMPTIONS.labels(result.outcome.value, (result.refusal or Reason.REDEEMED).value).inc()
        if result.refusal is not None and not result.replayed:
            message = redemption_status.REFUSALS[result.refusal]
            self.recorder.record("Redemption", body, result.refusal, "Redeem", message, warning=True)
        return self._forget(key)

    async def _write(self, key: str, body: Body, patch: Mapping[str, Any]) -> bool:
        async with self.pace.writing():
            return await self._writer.write(key, body, patch)

    async def _currency(self) -> str:
        if self._info is None:
            self._info = await self.ledger.info()
        return self._info.currency

    def _forget(self, key: str) -> Result:
        self._first_missed.pop(key, None)
        return Result.DONE


def _parse(body: Body) -> Redemption:
    try:
        return Redemption.from_body(body)
    except ValidationError:
        raise InvalidSpecError(
            "This version of the operator does not know all of the spec: upgrade the operator."
        ) from None

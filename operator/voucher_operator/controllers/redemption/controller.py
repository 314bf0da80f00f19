"""Redemption without an order: from the resource to the use case `services.redeem`, and from its result to the status.

The ledger always returns the same result for the same key, so a crash between the commit and the PATCH is repaired by
sending the request again. See also: `request_builder` builds the request; `status` builds the conditions;
`result_writer` writes them; `purchase.controller` does the same for a Redemption with an order.
"""

from dataclasses import dataclass, field
from datetime import datetime

from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.controllers.redemption.request_builder import DeletedError, RequestBuilder
from voucher_operator.controllers.redemption.result_writer import ResultWriter, StatusUpdate, UserEvent
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body
from voucher_operator.kube.work_queue import ReconcileResult, Result
from voucher_operator.ledger.types import Outcome, RedeemResult
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import InvalidSpecError, TerminalError, TransientError
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption
from voucher_operator.services.redeem import RedeemService
from voucher_operator.services.refusals import REFUSALS


@dataclass(slots=True)
class RedemptionController:
    """Reconciles Redemptions without an order."""

    redeems: RedeemService
    cache: Cache
    requests: RequestBuilder
    writer: ResultWriter
    _reopened: dict[str, datetime | None] = field(default_factory=dict)
    """Keys of finished Redemptions that are reconciled again, with the time of the undo, if that is the cause."""

    def reopen(self, body: Body, key: str, undone_at: datetime | None = None) -> None:
        """Have a finished Redemption reconciled, because another writer has undone it, or its status is wrong."""
        self.cache.put(body)
        self._reopened[key] = undone_at

    async def reconcile(self, key: str) -> ReconcileResult:
        """Redeem, and write the status; raises ApiError when the status cannot be written."""
        await self.writer.confirm(key)
        body = self.cache.get(key)
        finished = body is not None and bool(body["status"].get("finished"))
        if body is None or (finished and key not in self._reopened):
            return self._forget(key)
        try:
            redemption = Redemption.parse(body)
        except InvalidSpecError as error:
            return self._drop(key, body) if finished else await self.writer.write_invalid(key, body, error)
        try:
            update = await self._update(redemption, finished=finished)
        except DeletedError:
            return self._forget(key)
        result = await self.writer.write(key, body, update)
        if update.finished and result is Result.DONE:
            self._forget(key)
        return result

    async def _update(self, redemption: Redemption, *, finished: bool) -> StatusUpdate:
        try:
            if finished:
                # No new request: the Secret or Voucher of the code may no longer exist.
                known = await self._known(redemption)
                if known is None:
                    return not_in_ledger(redemption)
                result = known
            elif redemption.deleted:
                result = await self._find(redemption)
            else:
                result = await self._redeem(redemption)
            return redeemed(redemption, result, await self.redeems.currency())
        except TransientError as error:
            waiting = redemption_status.waiting(redemption, error)
            return StatusUpdate(waiting, retry=True, retry_after=error.retry_after)
        except TerminalError as error:
            return StatusUpdate(redemption_status.stalled(redemption, error))

    async def _known(self, redemption: Redemption) -> RedeemResult | None:
        """Return what the ledger has of a finished Redemption; None when it has nothing."""
        undone_at = self._reopened[redemption.key]
        if undone_at is not None:
            return RedeemResult(redemption.key, Outcome.UNDONE, undone_at, replayed=True)
        self.requests.health.check()
        return await self.redeems.find(redemption.key, redemption.request_hash(), redemption.metadata.uid)

    async def _find(self, redemption: Redemption) -> RedeemResult:
        """Read the result of a Redemption whose deletion has begun; raises DeletedError when there is none."""
        self.requests.health.check()
        result = await self.redeems.find(redemption.key, redemption.request_hash(), redemption.metadata.uid)
        if result is None:
            raise DeletedError
        return result

    async def _redeem(self, redemption: Redemption) -> RedeemResult:
        request = await self.requests.build(redemption)
        result = await self.redeems.redeem(request)
        if result.refusal is Reason.VOUCHER_NOT_FOUND and request.provisional:
            raise self.requests.missed(redemption.key)
        return result

    def _drop(self, key: str, body: Body) -> Result:
        self.cache.drop_object(body)
        return self._forget(key)

    def _forget(self, key: str) -> Result:
        self._reopened.pop(key, None)
        self.requests.forget(key)
        return Result.DONE


def not_in_ledger(redemption: Redemption) -> StatusUpdate:
    """Build the status of a finished Redemption of which the ledger knows nothing, with its Event."""
    event = UserEvent(Reason.NOT_IN_LEDGER, "Check", redemption_status.NOT_IN_LEDGER, warning=True)
    return StatusUpdate(redemption_status.not_in_ledger(redemption), event=event)


def redeemed(redemption: Redemption, result: RedeemResult, currency: str) -> StatusUpdate:
    """Build the status for the ledger's result of a Redemption without an order.

    A refusal or an undo gets an Event when the previous status has another reason. It does not matter whether the
    ledger returns the result for the first time: the status may not have been written then.
    """
    status = redemption_status.finished(redemption, result, currency)
    return StatusUpdate(status, result.outcome.value, event=_event(redemption, result))


def _event(redemption: Redemption, result: RedeemResult) -> UserEvent | None:
    if result.refusal is not None:
        event = UserEvent(result.refusal, "Redeem", REFUSALS[result.refusal], warning=True)
    elif result.outcome is Outcome.UNDONE:
        event = UserEvent(Reason.ROLLED_BACK, "Undo", redemption_status.UNDONE, warning=True)
    else:
        return None
    previous = conditions.reason_in(redemption.conditions, conditions.REDEEMED)
    return None if previous == event.reason else event

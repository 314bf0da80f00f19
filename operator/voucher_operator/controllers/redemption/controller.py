"""Redemption: ask the ledger once, and write its answer as the one status patch of a finished Redemption.

The ledger answers the same key alike for ever, so whatever dies between its commit and the patch is mended by asking
again. See also: `queue` calls `reconcile`, `requests` knows what to ask, `redemption_status` words the answer and
`answers` writes it; `orders` does the same for one with an order.
"""

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.controllers.redemption.request_builder import GoneError, RequestBuilder
from voucher_operator.controllers.redemption.result_writer import Answer, Note, ResultWriter
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body
from voucher_operator.kube.work_queue import Result
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import LedgerInfo, Outcome, RedeemResult
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import InvalidSpecError, TerminalError, TransientError
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption


@dataclass(slots=True)
class RedemptionController:
    """Reconciles Redemptions without an order."""

    ledger: Ledger
    cache: Cache
    requests: RequestBuilder
    answers: ResultWriter
    _undone: dict[str, datetime] = field(default_factory=dict)
    """Finished Redemptions that another writer has undone, and when."""
    _info: LedgerInfo | None = None

    def reopen(self, body: Body, key: str, undone_at: datetime) -> None:
        """Reconcile a Redemption although it is finished: another writer has undone it."""
        self.cache.put(body)
        self._undone[key] = undone_at

    async def reconcile(self, key: str) -> Result:
        """Bring one Redemption to its end; raises what may pass and could not be told."""
        await self.answers.confirm(key)
        body = self.cache.get(key)
        finished = body is not None and bool(body["status"].get("finished"))
        if body is None or (finished and key not in self._undone):
            return self._forget(key)
        try:
            redemption = parse(body)
        except InvalidSpecError as error:
            return self._drop(key, body) if finished else await self.answers.invalid(key, body, error)
        try:
            answer = await self._answer(redemption, finished=finished)
        except GoneError:
            return self._forget(key)
        except TransientError as error:
            answer = Answer(redemption_status.waiting(redemption, error), again=True)
        except TerminalError as error:
            answer = Answer(redemption_status.stalled(redemption, error))
        result = await self.answers.give(key, body, answer)
        if answer.finished and result is Result.DONE:
            self._forget(key)
        return result

    async def _answer(self, redemption: Redemption, *, finished: bool) -> Answer:
        if finished:
            # The ledger is not asked again: where the code came from may be gone.
            result = RedeemResult(redemption.key, Outcome.UNDONE, self._undone[redemption.key], replayed=True)
            return redeemed(redemption, result, await self._currency())
        return await self._redeem(redemption)

    async def _redeem(self, redemption: Redemption) -> Answer:
        request = await self.requests.of(redemption)
        result = await self.ledger.redeem(request)
        self.requests.answered(request, result.refusal)
        return redeemed(redemption, result, await self._currency())

    async def _currency(self) -> str:
        if self._info is None:
            self._info = await self.ledger.info()
        return self._info.currency

    def _drop(self, key: str, body: Body) -> Result:
        self.cache.drop_object(body)
        return self._forget(key)

    def _forget(self, key: str) -> Result:
        self._undone.pop(key, None)
        self.requests.forget(key)
        return Result.DONE


def redeemed(redemption: Redemption, result: RedeemResult, currency: str) -> Answer:
    """Word what the ledger said to a code alone; a refusal or an undo makes an event when the status did not say it.

    Not when the ledger says it for the first time: the status may not have been written then.
    """
    status = redemption_status.finished(redemption, result, currency)
    return Answer(status, result.outcome.value, note=_note(redemption, result))


def _note(redemption: Redemption, result: RedeemResult) -> Note | None:
    if result.refusal is not None:
        note = Note(result.refusal, "Redeem", redemption_status.REFUSALS[result.refusal], warning=True)
    elif result.outcome is Outcome.UNDONE:
        note = Note(Reason.ROLLED_BACK, "Undo", redemption_status.UNDONE, warning=True)
    else:
        return None
    said = conditions.reason_in(redemption.conditions, conditions.REDEEMED)
    return None if said == note.reason else note


def parse(body: Body) -> Redemption:
    """Read a Redemption; raises InvalidSpecError for a spec that this version does not know all of."""
    try:
        return Redemption.from_body(body)
    except ValidationError:
        raise InvalidSpecError(
            "This version of the operator does not know all of the spec: upgrade the operator."
        ) from None

"""Voucher: put what Git says into the ledger, and write what the ledger says into the status.

Level-triggered: one `reconcile` for a new Voucher, an edit, drift, a moved counter, a Secret that came or changed.
Decides nothing about money: `voucher_operator.ledger` does. See also: `queue` calls, `voucher_status` words the
answer, `watch` calls `revoke`.
"""

import asyncio
import logging
from collections.abc import Callable  # noqa: TC003
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from pydantic import ValidationError

from voucher_operator import telemetry
from voucher_operator.controllers.voucher import status as voucher_status
from voucher_operator.controllers.voucher.code_index import CodeIndex
from voucher_operator.kube import client as kube
from voucher_operator.kube.cache import Cache, key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.status_writer import StatusWriter, is_news
from voucher_operator.kube.work_queue import Result
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import LedgerBusyError
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import PutOutcome, PutResult, VoucherCounters, VoucherOwner, VoucherTerms
from voucher_operator.resources import conditions
from voucher_operator.resources.codes import validate_code
from voucher_operator.resources.errors import CodeConflictError, InvalidSpecError, OperatorError, TransientError
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.voucher import State, Voucher

log = logging.getLogger(__name__)

FINALIZER = "billing.openova.io/revoke"
_ENDED = 10_000
"""Deleted Vouchers that are remembered; what still speaks of one is at most minutes old."""


class VoucherController:
    """Reconciles Vouchers. `requeue` is set by whoever owns the queue."""

    def __init__(self, ledger: Ledger, api: KubeApi, recorder: EventRecorder, cache: Cache) -> None:
        self._ledger = ledger
        self._kube = api
        self._recorder = recorder
        self._cache = cache
        self._writer = StatusWriter(api, kube.VOUCHERS, "Voucher", cache)
        self._agreed: dict[str, tuple[str, VoucherCounters]] = {}
        self._ended: dict[str, bool] = {}
        """uids of deleted Vouchers, and whether the event of the revocation is posted."""
        self._taken: dict[str, str] = {}
        """By uid, what the event Issued, which is posted with the status, says of another Voucher."""
        self._placed: dict[str, VoucherOwner] = {}
        self._fresh: dict[str, VoucherCounters] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.requeue: Callable[[str], None] = lambda _: None
        self.codes = CodeIndex()
        self.outage = LedgerHealth()

    async def reconcile(self, key: str) -> Result:
        """Bring one Voucher and its ledger row in line; raises what may pass."""
        await self._writer.confirm(key)
        body = self._cache.get(key)
        await self._revoke_predecessor(key, body)
        if body is None or not _is_held(body):
            return Result.DONE
        try:
            voucher = _parse(body)
        except InvalidSpecError as unknown:
            written = await self._writer.write_invalid(key, body, unknown, conditions.VOUCHER_CONDITIONS)
            return Result.DONE if written else Result.REQUEUE
        return await self._reconcile(key, body, voucher)

    async def _reconcile(self, key: str, body: Body, voucher: Voucher) -> Result:
        try:
            async with self._alone(voucher.metadata.uid):
                if voucher.metadata.uid in self._ended:
                    return Result.DONE
                counters = self._known(voucher) or await self._issue(body, voucher)
        except LedgerBusyError as error:
            # Somebody else has the row for a moment: what the status says of an issued Voucher still holds.
            if _is_settled(voucher):
                raise
            return await self._fail(key, body, voucher, error)
        except OperatorError as error:
            return await self._fail(key, body, voucher, error)
        status = voucher_status.issued(voucher, counters, datetime.now(UTC))
        written = await self._writer.write(key, body, status, lambda: self._report(body, voucher, status["state"]))
        return Result.DONE if written else Result.REQUEUE

    def _report(self, body: Body, voucher: Voucher, state: str) -> None:
        """Post the events of a status that was just written: what it says and the one before it did not."""
        if not voucher_status.was_issued(voucher.conditions):
            self._record_issued(body, self._taken.pop(voucher.metadata.uid, ""))
        if State.EXHAUSTED == state != voucher.status.get("state"):
            self._record(body, Reason.EXHAUSTED, "Redeem", "The cap is used up.")

    def _known(self, voucher: Voucher) -> VoucherCounters | None:
        """Return counters that a pass has just read, if nothing but counting is to be done."""
        counters = self._fresh.pop(voucher.metadata.uid, None)
        if counters is None or counters.drifted or counters.generation != voucher.metadata.generation:
            return None
        return counters if _is_settled(voucher) else None

    async def _issue(self, body: Body, voucher: Voucher) -> VoucherCounters:
        """Put the Voucher into the ledger, and tell at once what was done there."""
        result = await self._put(voucher)
        self._placed[voucher.key] = VoucherOwner(
            voucher.metadata.uid, voucher.metadata.namespace, voucher.metadata.name
        )
        self._tell(body, voucher, result)
        return result.counters

    async def _revoke_predecessor(self, key: str, body: Body | None) -> None:
        """Revoke what this process put for a Voucher of this name that has gone without being revoked."""
        placed = self._placed.get(key)
        if placed is None or (body is not None and body["metadata"]["uid"] == placed.uid):
            return
        async with self._alone(placed.uid):
            self._end(placed.uid)
            revoked = await self._ledger.revoke(placed)
        self._placed.pop(key, None)
        if revoked:
            extra = {"resource": "Voucher", "key": key, "reason": Reason.REVOKED.value}
            log.info("revoked the code of a Voucher that has gone", extra=extra)
        self._requeue_conflicts()

    async def _fail(self, key: str, body: Body, voucher: Voucher, error: OperatorError) -> Result:
        status = voucher_status.failed(voucher, error, datetime.now(UTC))
        if not await self._writer.write(key, body, status, lambda: self._report_failure(body, voucher, error)):
            return Result.REQUEUE
        return Result.RETRY if isinstance(error, TransientError) else Result.DONE

    def _report_failure(self, body: Body, voucher: Voucher, error: OperatorError) -> None:
        if isinstance(error, TransientError) or _ready_reason(voucher) == error.reason:
            return
        self._record(body, error.reason, "Issue", error.message, warning=True)
        if isinstance(error, CodeConflictError):
            self._tell_holder(voucher, error.holder_uid)

    def _tell_holder(self, refused: Voucher, holder_uid: str) -> None:
        """Tell the Voucher that has the code who else wants it; of another namespace nothing but that it does."""
        holder = self._cache.by_uid(holder_uid)
        if holder is None:
            return
        same = holder["metadata"]["namespace"] == refused.metadata.namespace
        who = f"Voucher {refused.metadata.name}" if same else "A Voucher of another namespace"
        message = f"{who} has the same code, and was refused."
        self._record(holder, Reason.CODE_CONTESTED, "Issue", message, warning=True)

    async def _put(self, voucher: Voucher) -> PutResult:
        spec, metadata = voucher.spec, voucher.metadata
        terms = VoucherTerms(
            uid=metadata.uid,
            namespace=metadata.namespace,
            name=metadata.name,
            created_at=metadata.creation_timestamp,
            generation=metadata.generation,
            code=await self.code_of(voucher),
            from_secret=voucher.from_secret,
            credit_minor=voucher.credit_minor,
            currency=spec.credit.currency,
            description=spec.description,
            active=spec.active,
            max_redemptions=spec.max_redemptions,
            valid_from=spec.valid_from,
            valid_until=spec.valid_until,
        )
        self.outage.check()
        result = await self._ledger.put(terms)
        self.codes.put(terms.uid, terms.code)
        return result

    async def code_of(self, voucher: Voucher) -> str:
        """Return the code in its normal form; raises SecretNotFoundError, SecretUnreadableError, InvalidCodeError."""
        if voucher.spec.code_from is None:
            return voucher.spec.code or ""
        ref = voucher.spec.code_from.secret_key_ref
        return validate_code(await self._kube.secret_value(voucher.metadata.namespace, ref.name, ref.key))

    def _tell(self, body: Body, voucher: Voucher, result: PutResult) -> None:
        """Record what was done to the ledger as soon as it was done, and hurry the Voucher that lost its code by it.

        Issued is posted with the status that says so first: a put that is repeated does not tell that it was the first.
        """
        taken = f" It was taken over from Voucher {result.displaced.name}, which is newer." if result.displaced else ""
        if result.outcome is PutOutcome.ISSUED and voucher_status.was_issued(voucher.conditions):
            self._record_issued(body, taken)
        elif taken:
            self._taken[voucher.metadata.uid] = taken
        if result.outcome is PutOutcome.DRIFT_CORRECTED:
            telemetry.DRIFT_CORRECTED.inc()
            message = f"Edited outside Git and put back: {', '.join(result.corrected)}."
            self._record(body, Reason.DRIFT_CORRECTED, "Correct", message, warning=True)
        if result.displaced is not None:
            self.requeue(f"{result.displaced.namespace}/{result.displaced.name}")

    def _record_issued(self, body: Body, taken: str) -> None:
        self._record(body, Reason.ISSUED, "Issue", f"The code can be redeemed on the ledger.{taken}")

    def _record(self, body: Body, reason: Reason, action: str, message: str, *, warning: bool = False) -> None:
        log.info(message, extra={"resource": "Voucher", "key": key_of(body), "reason": reason.value})
        self._recorder.record("Voucher", body, reason, action, message, warning=warning)

    def differs(self, body: Body, counters: VoucherCounters) -> bool:
        """Whether the ledger's counters say anything that the status does not; cheap when both are as last time."""
        seen = (body["metadata"]["resourceVersion"], counters)
        if self._agreed.get(counters.uid) == seen:
            return False
        try:
            voucher = _parse(body)
        except InvalidSpecError:
            return False
        behind = counters.drifted or counters.generation != voucher.metadata.generation
        stale = behind or is_news(body, voucher_status.issued(voucher, counters, datetime.now(UTC)))
        if stale:
            self._fresh[counters.uid] = counters
        else:
            self._agreed[counters.uid] = seen
        return stale

    async def revoke(self, body: Body) -> None:
        """Revoke the code of a deleted Voucher; raises LedgerUnavailableError. Redemptions and entries stay.

        The event is posted also when the ledger has nothing to revoke any more: an answer of it may have been lost.
        """
        metadata = body["metadata"]
        async with self._alone(metadata["uid"]):
            self._end(metadata["uid"])
            owner = VoucherOwner(metadata["uid"], metadata["namespace"], metadata["name"])
            revoked = await self._ledger.revoke(owner)
        self._placed.pop(key_of(body), None)
        issued = voucher_status.was_issued(body.get("status", {}).get("conditions", ()))
        if (revoked or issued) and not self._ended.get(metadata["uid"]):
            self._ended[metadata["uid"]] = True
            self._record(body, Reason.REVOKED, "Revoke", "The code can no longer be redeemed; what was redeemed stays.")
        self._requeue_conflicts()

    def _alone(self, uid: str) -> asyncio.Lock:
        """Keep a put that is under way from coming after the revocation: it would bring the code back."""
        return self._locks.setdefault(uid, asyncio.Lock())

    def _end(self, uid: str) -> None:
        """Never put this Voucher again, whatever an old list or an event that comes late says of it."""
        self.codes.drop(uid)
        self._fresh.pop(uid, None)
        self._agreed.pop(uid, None)
        self._taken.pop(uid, None)
        self._ended.setdefault(uid, False)
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]

    def release_finalizer(self, body: Body, error: TransientError) -> None:
        """Let a deleted Voucher go unrevoked: a namespace must not wait for a ledger for ever."""
        message = "Let go before its code could be revoked; it is revoked as soon as the ledger can be reached."
        self._record(body, error.reason, "Revoke", message, warning=True)

    async def revoke_orphan(self, owner: VoucherOwner) -> None:
        """Revoke the code of a Voucher that is gone without having been revoked."""
        if await self._ledger.revoke(owner):
            key = f"{owner.namespace}/{owner.name}"
            extra = {"resource": "Voucher", "key": key, "reason": Reason.REVOKED.value}
            log.warning("revoked the code of a Voucher that is gone", extra=extra)
        self._requeue_conflicts()

    def _requeue_conflicts(self) -> None:
        """A code may have become free: those that wanted one try again."""
        for key in self._cache:
            body = self._cache.get(key)
            if body is not None and body["status"].get("state") == State.CONFLICT:
                self.requeue(key)


def _is_held(body: Body) -> bool:
    """Whether it stays until it is revoked: no code is issued before the finalizer is there, nor once it is deleted."""
    metadata = body["metadata"]
    return "deletionTimestamp" not in metadata and FINALIZER in metadata.get("finalizers", ())


def _is_settled(voucher: Voucher) -> bool:
    """Whether its status says that the ledger holds this very generation."""
    return _ready_reason(voucher) == Reason.ISSUED and voucher.status.get("observedGeneration") == (
        voucher.metadata.generation
    )


def _parse(body: Body) -> Voucher:
    try:
        return Voucher.from_body(body)
    except ValidationError:
        raise InvalidSpecError(
            "This version of the operator does not know all of the spec: upgrade the operator."
        ) from None


def _ready_reason(voucher: Voucher) -> str | None:
    return next((one["reason"] for one in voucher.conditions if one["type"] == conditions.READY), None)

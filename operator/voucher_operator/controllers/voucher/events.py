"""Events for people about a Voucher: issued, corrected, exhausted, contested, revoked, refused.

An event is posted together with the status that says its reason first: an answer of the ledger that is repeated does
not tell that it was the first. See also: `controller` calls; `kube.event_recorder` posts; docs/voucher.md lists them.
"""

import logging
from dataclasses import dataclass, field

from voucher_operator import telemetry
from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.voucher import status as voucher_status
from voucher_operator.kube.cache import Cache, key_of
from voucher_operator.kube.client import Body
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.ledger.types import PutOutcome, PutResult
from voucher_operator.resources.errors import CodeConflictError, OperatorError, TransientError
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.voucher import State, Voucher

log = logging.getLogger(__name__)


@dataclass(slots=True)
class VoucherEvents:
    """Decides which events a Voucher gets; one for each time of leading."""

    recorder: EventRecorder
    cache: Cache
    _displaced: dict[str, str] = field(default_factory=dict)
    """By uid, what the event Issued, which is posted with the status, says of another Voucher."""

    def put(self, body: Body, voucher: Voucher, result: PutResult) -> None:
        """Record what a put has done to the ledger, except what `status_written` posts with the status."""
        displaced = result.displaced
        taken = f" It was taken over from Voucher {displaced.name}, which is newer." if displaced else ""
        if result.outcome is PutOutcome.ISSUED and voucher_status.was_issued(voucher.conditions):
            self._issued(body, taken)
        elif taken:
            self._displaced[voucher.metadata.uid] = taken
        if result.outcome is PutOutcome.DRIFT_CORRECTED:
            telemetry.DRIFT_CORRECTED.inc()
            message = f"Edited outside Git and put back: {', '.join(result.corrected)}."
            self._record(body, Reason.DRIFT_CORRECTED, "Correct", message, warning=True)

    def status_written(self, body: Body, voucher: Voucher, state: str) -> None:
        """Post the events of a status that was just written: what it says and the one before it did not."""
        if not voucher_status.was_issued(voucher.conditions):
            self._issued(body, self._displaced.pop(voucher.metadata.uid, ""))
        if State.EXHAUSTED == state != voucher.status.get("state"):
            self._record(body, Reason.EXHAUSTED, "Redeem", "The cap is used up.")

    def failure_written(self, body: Body, voucher: Voucher, error: OperatorError) -> None:
        """Post the event of a status that was just written and says that somebody must act."""
        if isinstance(error, TransientError) or voucher_status.ready_reason(voucher.conditions) == error.reason:
            return
        self._record(body, error.reason, "Issue", error.message, warning=True)
        if isinstance(error, CodeConflictError):
            self._contested(voucher, error.holder_uid)

    def revoked(self, body: Body) -> None:
        """Post that the code of a deleted Voucher is revoked."""
        self._record(body, Reason.REVOKED, "Revoke", "The code can no longer be redeemed; what was redeemed stays.")

    def finalizer_released(self, body: Body, error: TransientError) -> None:
        """Post that a Voucher is gone before its code was revoked."""
        message = (
            "The finalizer is removed before the code was revoked, because the ledger cannot be reached; the code is "
            "revoked as soon as it can."
        )
        self._record(body, error.reason, "Revoke", message, warning=True)

    def forget(self, uid: str) -> None:
        """Drop what waits for the status of a Voucher that is gone."""
        self._displaced.pop(uid, None)

    def _issued(self, body: Body, taken: str) -> None:
        self._record(body, Reason.ISSUED, "Issue", f"The code can be redeemed on the ledger.{taken}")

    def _contested(self, refused: Voucher, holder_uid: str) -> None:
        """Post to the Voucher that has the code who else wants it; of another namespace nothing but that it does."""
        holder = self.cache.by_uid(holder_uid)
        if holder is None:
            return
        same = holder["metadata"]["namespace"] == refused.metadata.namespace
        who = f"Voucher {refused.metadata.name}" if same else "A Voucher of another namespace"
        message = f"{who} has the same code, and was refused."
        self._record(holder, Reason.CODE_CONTESTED, "Issue", message, warning=True)

    def _record(self, body: Body, reason: Reason, action: str, message: str, *, warning: bool = False) -> None:
        log.info(message, extra={"resource": "Voucher", "key": key_of(body), "reason": reason.value})
        self.recorder.record(VOUCHER, body, reason, action, message, warning=warning)

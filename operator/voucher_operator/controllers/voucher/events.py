"""Kubernetes Events about a Voucher: issued, drift corrected, exhausted, contested, revoked, refused.

An Event is posted with the first status that has its reason. A repeated response of the ledger does not show whether
it was the first one. See also: `controller` calls; `kube.event_recorder` posts; docs/voucher.md lists them.
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
    """Decides which Events a Voucher gets; one instance for each term as leader."""

    recorder: EventRecorder
    cache: Cache
    _displaced: dict[str, str] = field(default_factory=dict)
    """By uid: the sentence about another Voucher for the Event Issued, which is posted with the status."""

    def put(self, body: Body, voucher: Voucher, result: PutResult) -> None:
        """Record what a put has changed in the ledger, except what `status_written` posts with the status."""
        displaced = result.displaced
        taken = f" It was taken from Voucher {displaced.name}, which is newer." if displaced else ""
        if result.outcome is PutOutcome.ISSUED and voucher_status.was_issued(voucher.conditions):
            self._issued(body, taken)
        elif taken:
            self._displaced[voucher.metadata.uid] = taken
        if result.outcome is PutOutcome.DRIFT_CORRECTED:
            telemetry.DRIFT_CORRECTED.inc()
            message = f"Changed outside Git and restored: {', '.join(result.corrected)}."
            self._record(body, Reason.DRIFT_CORRECTED, "Correct", message, warning=True)

    def status_written(self, body: Body, voucher: Voucher, state: str) -> None:
        """Post the Events of a status that was just written: for what it says and the previous one did not."""
        if not voucher_status.was_issued(voucher.conditions):
            self._issued(body, self._displaced.pop(voucher.metadata.uid, ""))
        if State.EXHAUSTED == state != voucher.status.get("state"):
            self._record(body, Reason.EXHAUSTED, "Redeem", "maxRedemptions is reached.")

    def failure_written(self, body: Body, voucher: Voucher, error: OperatorError) -> None:
        """Post the Event of a status that was just written and that requires a person to act."""
        if isinstance(error, TransientError) or voucher_status.ready_reason(voucher.conditions) == error.reason:
            return
        self._record(body, error.reason, "Issue", error.message, warning=True)
        if isinstance(error, CodeConflictError):
            self._contested(voucher, error.holder_uid)

    def revoked(self, body: Body) -> None:
        """Post the Event for a deleted Voucher whose code is revoked."""
        self._record(body, Reason.REVOKED, "Revoke", "The code can no longer be redeemed. Earlier redemptions stay.")

    def finalizer_released(self, body: Body, error: TransientError) -> None:
        """Post the Event for a Voucher whose finalizer is removed before its code is revoked."""
        message = (
            "The finalizer is removed before the code is revoked, because the ledger is unavailable. The code is "
            "revoked when the ledger is available again."
        )
        self._record(body, error.reason, "Revoke", message, warning=True)

    def forget(self, uid: str) -> None:
        """Drop what is stored for a deleted Voucher."""
        self._displaced.pop(uid, None)

    def _issued(self, body: Body, taken: str) -> None:
        self._record(body, Reason.ISSUED, "Issue", f"The code can be redeemed on the ledger.{taken}")

    def _contested(self, refused: Voucher, holder_uid: str) -> None:
        """Post the Event to the Voucher that owns the code; a Voucher of another namespace is not named."""
        holder = self.cache.by_uid(holder_uid)
        if holder is None:
            return
        same = holder["metadata"]["namespace"] == refused.metadata.namespace
        who = f"Voucher {refused.metadata.name}" if same else "A Voucher of another namespace"
        message = f"{who} has the same code and was refused."
        self._record(holder, Reason.CODE_CONTESTED, "Issue", message, warning=True)

    def _record(self, body: Body, reason: Reason, action: str, message: str, *, warning: bool = False) -> None:
        log.info(message, extra={"resource": "Voucher", "key": key_of(body), "reason": reason.value})
        self.recorder.record(VOUCHER, body, reason, action, message, warning=warning)

"""Writes the status of a Redemption, and once it is finished the metric and the event for people.

See also: `controller`, here and in `purchase`, builds the updates; `kube.status_writer` patches; `backpressure` keeps
connections free for others.
"""

from dataclasses import dataclass, field
from datetime import datetime

from voucher_operator import telemetry
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.failpoints import Step, failpoint
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.status_writer import StatusWriter
from voucher_operator.kube.work_queue import Result
from voucher_operator.resources import conditions
from voucher_operator.resources.base import Status
from voucher_operator.resources.errors import InvalidSpecError
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import RedemptionStatus


@dataclass(frozen=True, slots=True)
class UserEvent:
    """An event for people, posted when the status that it goes with is written."""

    reason: Reason
    action: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """A status, what it counts as (`outcome`) once it is finished, and whether to `retry` with backoff."""

    status: Status
    outcome: str = ""
    retry: bool = False
    event: UserEvent | None = None
    ended_at: datetime | None = None
    """When the purchase ended that it reports, by PostgreSQL's clock."""

    @property
    def finished(self) -> bool:
        """Whether it says that nothing is left to do."""
        return isinstance(self.status, RedemptionStatus) and bool(self.status.finished)


@dataclass(slots=True)
class ResultWriter:
    """Writes statuses; one for each time of leading."""

    api: KubeApi
    recorder: EventRecorder
    cache: Cache
    backpressure: Backpressure
    _writer: StatusWriter = field(init=False)

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.api, REDEMPTION, self.cache)

    async def confirm(self, key: str) -> None:
        """As `StatusWriter.confirm`."""
        await self._writer.confirm(key)

    async def write(self, key: str, body: Body, update: StatusUpdate) -> Result:
        """Write a status; raises ApiUnavailableError."""
        async with self.backpressure.writing(), failpoint(Step.STATUS):
            patch = update.status.to_patch()
            written = await self._writer.write(key, body, patch, lambda: self._report(body, update))
        if not written:
            return Result.REQUEUE
        if update.finished:
            self.cache.drop_object(body)
        return Result.RETRY if update.retry else Result.DONE

    async def write_invalid(self, key: str, body: Body, error: InvalidSpecError) -> Result:
        """Say that the spec cannot be read by this version; as `write`."""
        written = await self._writer.write_invalid(key, body, error, conditions.OVERALL_CONDITIONS)
        return Result.DONE if written else Result.REQUEUE

    def _report(self, body: Body, update: StatusUpdate) -> None:
        if (event := update.event) is not None:
            self.recorder.record(REDEMPTION, body, event.reason, event.action, event.message, warning=event.warning)
        if update.finished and not body["status"].get("finished"):
            # Not when a finished one goes on: paid at the last moment, refunded, or undone.
            telemetry.REDEMPTIONS.labels(update.outcome, update.status.conditions[0]["reason"]).inc()

"""Writes what became of a Redemption: its status, and once it is finished the metric and the event for people.

See also: `redemptions` and `orders` make the answers, `writer` patches, `pace` keeps connections free for others.
"""

from dataclasses import dataclass, field
from datetime import datetime

from voucher_operator import telemetry
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.failpoints import Step, failpoint
from voucher_operator.kube import client as kube
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
class Note:
    """An event for people, posted when the status that it goes with is written."""

    reason: Reason
    action: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, what it counts as (`outcome`) once it is finished, and whether to come `again` after a while."""

    status: Status
    outcome: str = ""
    again: bool = False
    note: Note | None = None
    end: datetime | None = None
    """When the purchase ended that it tells of."""

    @property
    def finished(self) -> bool:
        """Whether it says that nothing is left to do."""
        return isinstance(self.status, RedemptionStatus) and bool(self.status.finished)


@dataclass(slots=True)
class ResultWriter:
    """Writes answers; one for each time of leading."""

    api: KubeApi
    recorder: EventRecorder
    cache: Cache
    pace: Backpressure
    _writer: StatusWriter = field(init=False)

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.api, kube.REDEMPTIONS, "Redemption", self.cache)

    async def confirm(self, key: str) -> None:
        """As `StatusWriter.confirm`."""
        await self._writer.confirm(key)

    async def give(self, key: str, body: Body, answer: Answer) -> Result:
        """Write a status; raises ApiUnavailableError."""
        async with self.pace.writing(), failpoint(Step.STATUS):
            patch = answer.status.to_patch()
            written = await self._writer.write(key, body, patch, lambda: self._report(body, answer))
        if not written:
            return Result.REQUEUE
        if answer.finished:
            self.cache.drop_object(body)
        return Result.RETRY if answer.again else Result.DONE

    async def invalid(self, key: str, body: Body, error: InvalidSpecError) -> Result:
        """Say that the spec cannot be read by this version; as `give`."""
        written = await self._writer.write_invalid(key, body, error, conditions.OVERALL_CONDITIONS)
        return Result.DONE if written else Result.REQUEUE

    def _report(self, body: Body, answer: Answer) -> None:
        if (note := answer.note) is not None:
            self.recorder.record("Redemption", body, note.reason, note.action, note.message, warning=note.warning)
        if answer.finished and not body["status"].get("finished"):
            # Not when a finished one goes on: paid at the last moment, refunded, or undone.
            telemetry.REDEMPTIONS.labels(answer.outcome, answer.status.conditions[0]["reason"]).inc()

"""Writes the status of a Redemption, posts its Event, and counts finished Redemptions.

See also: `controller`, here and in `purchase`, builds the updates; `kube.status_writer` patches; `backpressure` limits
the connections.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from voucher_operator import telemetry
from voucher_operator.controllers.feed import customer_flow
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.redemption.backpressure import Backpressure
from voucher_operator.failpoints import Step, failpoint
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.status_writer import StatusWriter, is_news
from voucher_operator.kube.work_queue import Result
from voucher_operator.resources import conditions
from voucher_operator.resources.base import Status
from voucher_operator.resources.errors import InvalidSpecError
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import RedemptionStatus


@dataclass(frozen=True, slots=True)
class UserEvent:
    """A Kubernetes Event, posted when the status that it belongs to is written."""

    reason: Reason
    action: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """A status, its `outcome` for the metric, and whether to `retry` with backoff."""

    status: Status
    outcome: str = ""
    retry: bool = False
    event: UserEvent | None = None
    ended_at: datetime | None = None
    """Time at which the reported purchase ended, by PostgreSQL's clock."""

    @property
    def finished(self) -> bool:
        """Whether the status says that nothing is left to do."""
        return isinstance(self.status, RedemptionStatus) and bool(self.status.finished)


@dataclass(slots=True)
class ResultWriter:
    """Writes statuses; one instance for each term as leader."""

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
        patch = update.status.to_patch()
        async with self._connection(key, body, patch, undecided=update.retry), failpoint(Step.STATUS):
            written = await self._writer.write(key, body, patch, lambda: self._report(body, update))
        if not written:
            return Result.REQUEUE
        if update.finished:
            self.cache.drop_object(body)
        return Result.RETRY if update.retry else Result.DONE

    async def write_invalid(self, key: str, body: Body, error: InvalidSpecError) -> Result:
        """Write conditions that say that this version cannot read the spec; otherwise as `write`."""
        written = await self._writer.write_invalid(key, body, error, conditions.OVERALL_CONDITIONS)
        return Result.DONE if written else Result.REQUEUE

    def _connection(
        self, key: str, body: Body, patch: Mapping[str, Any], *, undecided: bool
    ) -> AbstractAsyncContextManager[None]:
        """Hold a connection, unless nothing is sent: thousands of Redemptions that wait write their status once."""
        if not is_news(body, patch):
            return nullcontext()
        return self.backpressure.writing(customer_flow(key, body), undecided=undecided)

    def _report(self, body: Body, update: StatusUpdate) -> None:
        if (event := update.event) is not None:
            self.recorder.record(REDEMPTION, body, event.reason, event.action, event.message, warning=event.warning)
        if update.finished and not body["status"].get("finished"):
            # A finished one that changes later (paid at the last moment, refunded, undone) is not counted again.
            telemetry.REDEMPTIONS.labels(update.outcome, update.status.conditions[0]["reason"]).inc()

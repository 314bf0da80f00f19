"""Records Kubernetes Events: one per change of reason; a repeated one becomes a series.

kopf would post an Event for every log line, never aggregated, with a placeholder for the action. Events are best
effort: they wait in a queue that is bounded for each namespace and serves the namespaces in turn, and those that do not
fit are counted and dropped; the state is in the conditions and in the ledger. See also: the controllers call `record`;
`client` posts; `fairness` has the order.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from voucher_operator import telemetry
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import NotFoundError
from voucher_operator.kube.fairness import FairQueue
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.errors import ApiError
from voucher_operator.resources.reasons import Reason

log = logging.getLogger(__name__)

_SERIES_SECONDS = 600.0
_REMEMBERED = 2000
_PENDING = 500
"""Events of one namespace that wait."""
_PER_SECOND = 20


@dataclass(frozen=True, slots=True)
class _Event:
    kind: ResourceKind
    body: Body
    type: Literal["Normal", "Warning"]
    reason: Reason
    action: str
    message: str

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.body["metadata"]["uid"], self.reason, self.message)


@dataclass(slots=True)
class _Series:
    namespace: str
    name: str
    count: int
    started: float


class EventRecorder:
    """Posts events.k8s.io/v1 Events in the background, from `run`."""

    def __init__(self, kube: KubeApi, controller: str, instance: str) -> None:
        """`controller` is the reporting controller, such as `example.com/name`; `instance` is the pod."""
        self._kube = kube
        self._controller = controller
        self._instance = instance
        self._pending: FairQueue[_Event] = FairQueue()
        self._by_namespace: Counter[str] = Counter()
        self._recorded = asyncio.Event()
        self._series: OrderedDict[tuple[str, str, str], _Series] = OrderedDict()

    def record(
        self, kind: ResourceKind, body: Body, reason: Reason, action: str, message: str, *, warning: bool = False
    ) -> None:
        """Queue an Event about a resource; the message has no secret and no changing number."""
        event = _Event(kind, body, "Warning" if warning else "Normal", reason, action, message)
        namespace = body["metadata"]["namespace"]
        if self._by_namespace[namespace] >= _PENDING:
            telemetry.EVENTS_DROPPED.inc()
            return
        self._by_namespace[namespace] += 1
        self._pending.push((namespace, ""), event)
        self._recorded.set()

    async def run(self) -> None:
        """Post queued Events until cancelled, at most `_PER_SECOND` each second."""
        while True:
            while (event := self._next()) is None:
                self._recorded.clear()
                await self._recorded.wait()
            await self._try(event)
            await asyncio.sleep(1 / _PER_SECOND)

    async def drain(self, seconds: float) -> None:
        """Post the Events that are still queued, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while (event := self._next()) is not None:
                    await self._try(event)
        except TimeoutError:
            telemetry.EVENTS_DROPPED.inc(1 + len(self._pending))

    def _next(self) -> _Event | None:
        if (taken := self._pending.pop()) is None:
            return None
        (namespace, _), event = taken
        self._by_namespace[namespace] -= 1
        if not self._by_namespace[namespace]:
            del self._by_namespace[namespace]
        return event

    async def _try(self, event: _Event) -> None:
        """Post an Event; drop it when that fails, so that it does not block the others."""
        try:
            await self._post(event)
        except ApiError as error:
            telemetry.EVENTS_DROPPED.inc()
            log.info(
                "event not posted", extra={"resource": event.kind.kind, "reason": event.reason, "detail": str(error)}
            )

    async def _post(self, event: _Event) -> None:
        series = self._series.get(event.identity)
        if series is not None and time.monotonic() - series.started < _SERIES_SECONDS and await self._repeat(series):
            return
        manifest = self._manifest(event)
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        await self._kube.create_event(namespace, manifest)
        self._series[event.identity] = _Series(namespace, name, 1, time.monotonic())
        if len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)

    async def _repeat(self, series: _Series) -> bool:
        """Increase the count of a posted Event; False when the Event has been deleted."""
        series.count += 1
        try:
            await self._kube.patch_event(series.namespace, series.name, {"series": _repeat(series.count)})
        except NotFoundError:
            return False
        return True

    def _manifest(self, event: _Event) -> Body:
        metadata = event.body["metadata"]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name'][:200]}.{uuid4().hex[:16]}"},
            "eventTime": _now(),
            "reportingController": self._controller,
            "reportingInstance": self._instance[:128],
            "action": event.action,
            "reason": event.reason.value,
            "type": event.type,
            "note": event.message[:1024],
            "regarding": {
                "apiVersion": event.kind.api_version,
                "kind": event.kind.kind,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }


def _repeat(count: int) -> Body:
    return {"count": count, "lastObservedTime": _now()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""Publishes the outbox: in order for each tenant, several tenants at once, at least once.

An event is written in the transaction that makes it true, and marked after JetStream has acknowledged it; after a crash
in between it is published again with the same message id. Without NATS the events stay in the ledger, and nothing else
is affected. See also: `nats_connection`; `process.run` runs this while leading, and shows `details` in /readyz;
`web.webhook` calls `wake` after a commit.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final, Protocol

from voucher_operator import telemetry
from voucher_operator.failpoints import Step, failpoint
from voucher_operator.ledger.outbox.types import OutboxBacklog, OutboxEvent
from voucher_operator.messaging.nats_connection import (
    EventRefusedError,
    NatsConnection,
    NatsError,
    NatsNotConfiguredError,
    connected,
)
from voucher_operator.resources.errors import LeaseExpiredError, OperatorError
from voucher_operator.settings.messaging import NatsLogin

log = logging.getLogger(__name__)

_PAGE: Final = 500
"""Events in one read; those behind a refused event are not read, so that they do not hide the others."""
_RETRY: Final = 5.0
"""Seconds until a refused event is published again."""
_TENANTS: Final = 16
"""Tenants whose events are published concurrently."""
_MEASURE: Final = 2.0
_BACKOFF: Final = (0.5, 10.0)


class Outbox(Protocol):
    """The part of the ledger that the relay uses; each method raises LedgerUnavailableError."""

    async def outbox_pending(self, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
        """Return the oldest events that are not published, in order, without those of the tenants `without`."""
        ...

    async def outbox_published(self, ids: Sequence[str]) -> object:
        """Mark events as published, by id."""
        ...

    async def outbox_backlog(self) -> OutboxBacklog:
        """Count the pending events."""
        ...


class Relay:
    """One for each process; `run` while leading.

    `servers` and `login` are called for each connection, so that a new or changed address or password is used. `poll`
    is the maximum time, in seconds, until an event without a `wake` is found.
    """

    def __init__(
        self,
        outbox: Outbox,
        servers: Callable[[], list[str]],
        *,
        stream: str,
        prefix: str,
        poll: float = 1.0,
        login: Callable[[], NatsLogin] = NatsLogin,
    ) -> None:
        self._outbox = outbox
        self._servers = servers
        self._login = login
        self._stream = stream
        self._prefix = prefix
        self._poll = poll
        self._hint = asyncio.Event()
        self._refused: set[str] = set()
        self._blocked: dict[str, str] = {}
        self._retry_at = 0.0
        self._refusal: str | None = None
        self._problem: str | None = None
        self._backlog: OutboxBacklog | None = None
        self._pause = _BACKOFF[0]

    def wake(self) -> None:
        """Read the outbox now: an event has been committed."""
        self._hint.set()

    def details(self) -> dict[str, object]:
        """Return pending events, age of the oldest, and the problem, for /readyz; empty while not leading."""
        if self._backlog is None:
            return {}
        found: dict[str, object] = {
            "pending": self._backlog.waiting,
            "oldest_seconds": round(self._backlog.oldest_seconds),
        }
        problem = self._problem or self._refusal
        return found if problem is None else {**found, "problem": problem}

    async def run(self) -> None:
        """Publish until cancelled; a failure is logged once and retried."""
        parts = [asyncio.create_task(self._publish(), name="outbox"), asyncio.create_task(self._measure())]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)
            self._backlog = None
            for gauge in (telemetry.OUTBOX_PENDING, telemetry.OUTBOX_AGE):
                gauge.set(0)

    async def _publish(self) -> None:
        while True:
            try:
                async with connected(self._servers(), self._prefix, self._login()) as bus:
                    await bus.ensure_stream(self._stream)
                    telemetry.NATS_UP.set(1)
                    await self._relay(bus)
            except NatsError as error:
                self._log_change(
                    str(error), logging.INFO if isinstance(error, NatsNotConfiguredError) else logging.WARNING
                )
            except (OperatorError, LeaseExpiredError) as error:
                self._log_change(error.message, logging.INFO)  # `ledger.pool` logs it as a warning
            except Exception:
                # A bug here must not stop the controllers.
                log.exception("publishing failed", extra={"resource": "outbox", "reason": "InternalError"})
            finally:
                telemetry.NATS_UP.set(0)
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, _BACKOFF[1])

    async def _relay(self, bus: NatsConnection) -> None:
        """Publish repeatedly. Raises NatsError and LedgerUnavailableError."""
        self._retry_at = 0.0
        while True:
            self._hint.clear()
            if asyncio.get_running_loop().time() >= self._retry_at:
                await self._retry(bus)
            moved = await self._round(bus)
            self._log_change(None)
            self._pause = _BACKOFF[0]
            if not moved:
                await self._wait()

    async def _retry(self, bus: NatsConnection) -> None:
        """Unblock tenants with a refused event, and create the stream again if it was deleted. Raises NatsError."""
        self._retry_at = asyncio.get_running_loop().time() + _RETRY
        self._refusal = next(iter(self._blocked.values()), None)
        if self._blocked:
            self._blocked.clear()
            await bus.ensure_stream(self._stream)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._poll):
                await self._hint.wait()
        except TimeoutError:
            return

    async def _round(self, bus: NatsConnection) -> bool:
        """Publish the pending events; return whether there may be more. Acknowledged events are always marked."""
        events = await self._outbox.outbox_pending(_PAGE, list(self._blocked))
        acknowledged: list[OutboxEvent] = []
        try:
            await self._chains(bus, by_tenant(events), acknowledged)
        finally:
            if acknowledged:
                async with failpoint(Step.MARK_PUBLISHED):
                    await self._outbox.outbox_published([event.id for event in acknowledged])
                for event in acknowledged:
                    telemetry.EVENTS_PUBLISHED.labels(event.type).inc()
        return bool(events)

    async def _chains(
        self, bus: NatsConnection, chains: Iterable[list[OutboxEvent]], acknowledged: list[OutboxEvent]
    ) -> None:
        """Publish chains of events concurrently; the first error ends all, and is raised.

        Not a TaskGroup: before Python 3.12 it leaves its task marked as cancelled, which would confuse `connected`.
        """
        slots = asyncio.Semaphore(_TENANTS)
        failed: list[Exception] = []

        async def chain(events: list[OutboxEvent]) -> None:
            async with slots:
                for event in events:
                    if failed or not await self._sent(bus, event, failed):
                        return
                    acknowledged.append(event)

        await asyncio.gather(*(chain(events) for events in chains))
        if failed:
            raise failed[0]

    async def _sent(self, bus: NatsConnection, event: OutboxEvent, failed: list[Exception]) -> bool:
        """Publish one event; False when it is refused, which blocks its tenant, or on an error, put into `failed`."""
        try:
            async with failpoint(Step.PUBLISH):
                await bus.publish(event)
        except EventRefusedError as error:
            if event.id not in self._refused:
                log.warning("%s", error, extra={"resource": "outbox", "key": event.id, "reason": event.type})
            self._refused.add(event.id)
            self._blocked[event.tenant_id] = self._refusal = str(error)
            return False
        except Exception as error:
            failed.append(error)
            return False
        self._refused.discard(event.id)
        return True

    async def _measure(self) -> None:
        while True:
            try:
                self._backlog = await self._outbox.outbox_backlog()
            except OperatorError:
                pass  # `ledger.pool` logs it
            else:
                telemetry.OUTBOX_PENDING.set(self._backlog.waiting)
                telemetry.OUTBOX_AGE.set(self._backlog.oldest_seconds)
            await asyncio.sleep(_MEASURE)

    def _log_change(self, problem: str | None, level: int = logging.INFO) -> None:
        """Log each change, once."""
        extra = {"resource": "outbox", "reason": "EventsNotPublished"}
        if problem is not None and problem != self._problem:
            log.log(level, "events are not published: %s", problem, extra=extra)
        elif problem is None and self._problem is not None:
            log.info("events are published again", extra=extra)
        self._problem = problem


def by_tenant(events: Iterable[OutboxEvent]) -> list[list[OutboxEvent]]:
    """Group events by tenant, each group in order."""
    ordered = sorted(events, key=lambda event: (event.tenant_id, event.seq))
    return [list(group) for _, group in groupby(ordered, key=lambda event: event.tenant_id)]

"""Runs one replica of the operator.

Each process has one ledger, one API client and another one for the election alone, one server for probes and one for
webhooks; each term as leader has its own caches, queues and watches. Every replica serves webhooks; only the leader
reconciles and publishes events.

It starts without PostgreSQL, without a Secret and without CRDs: then it is not ready, reports why, and retries. On
SIGTERM the watches end first, then the running reconciles are finished, and the Lease is released last; what does not
end in time is ended with the process. See also: `cli` calls `run`; `kube.leader_election` decides when `lead` runs;
`crds` when it can; `controllers.wiring` builds the controllers; `time_limit`.
"""

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import kopf

from voucher_operator import telemetry
from voucher_operator.controllers import watch
from voucher_operator.controllers.feed import Feed
from voucher_operator.controllers.kinds import EXPECTED_CRDS, GROUP
from voucher_operator.controllers.voucher.controller import VoucherController
from voucher_operator.controllers.voucher.revocation import Revocations
from voucher_operator.controllers.wiring import Controllers, Process, build_controllers
from voucher_operator.kube import kopf_internals
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.crd_check import CRDCheck
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.leader_election import Leadership
from voucher_operator.kube.periodic import every
from voucher_operator.kube.work_queue import WorkQueue  # noqa: TC001
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.clock import difference
from voucher_operator.ledger.types import AttemptLimit
from voucher_operator.messaging.outbox_relay import Relay
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.catalog_source import source
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.process import crds, readiness
from voucher_operator.process.tasks import cancel, ended, spawn, uninterrupted
from voucher_operator.process.time_limit import TimeLimit
from voucher_operator.settings import Settings
from voucher_operator.web import probes
from voucher_operator.web.server import WebServer

log = logging.getLogger(__name__)

_CONTROLLER = f"{GROUP}/voucher-operator"
_DRAIN = 10.0
"""Seconds in which running reconciles must finish at a stop."""
_CANCEL_LEADING_AGAIN = 30.0
"""The same for the leader's task, which first finishes running reconciles."""
_ELECTION_CONNECTIONS = 2
_SECRET_CHECK = 2.0
_PURGE = 60.0
"""Seconds between two runs of `Ledger.purge`, which take half a minute at most."""
_STALE_SESSIONS = 5.0


class Operator:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger(
            settings.conninfo,
            pool_size=settings.pool_size,
            pooler=settings.pooler,
            sovereign=settings.sovereign,
            fence=self._fence,
            attempts=AttemptLimit(settings.wrong_codes, settings.wrong_codes_seconds),
        )
        self.catalog = Catalog(source(settings))
        self.checkout = Checkout(self.ledger, settings)
        self.relay = Relay(
            self.ledger,
            settings.nats_servers,
            stream=settings.nats_stream,
            prefix=settings.nats_subject_prefix,
            login=settings.nats_login,
        )
        self.kube = KubeApi(fence=self._fence)
        # Its own connections: whatever fills the others, the Lease is renewed.
        self.election_api = KubeApi(connections=_ELECTION_CONNECTIONS)
        self.crd_check = CRDCheck(self.kube, EXPECTED_CRDS)
        self.recorder = EventRecorder(self.kube, _CONTROLLER, settings.pod_name)
        self.revocations = Revocations(settings.finalizer_timeout)
        self.stopping = asyncio.Event()
        self.stop_limit = TimeLimit(settings.stop_timeout, "the process")
        self.queues: list[WorkQueue] = []
        self.leadership: Leadership | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._handle_signals()
        asyncio.get_running_loop().set_exception_handler(kopf_internals.handle_exception)
        async with AsyncExitStack() as opened:
            await self._serve(await self._open(opened))

    async def _open(self, opened: AsyncExitStack) -> asyncio.Task[None]:
        """Open all parts, and return the task that serves the probes."""
        # Closed also when the next one fails to open: the pool's tasks do not end by a cancellation.
        for part in (self.ledger, self.checkout, self.catalog):
            opened.push_async_callback(part.close)
        await self.ledger.open()
        for api in (self.kube, self.election_api):
            await api.open()
            opened.push_async_callback(api.close)
        app = probes.application(lambda: readiness.problems(self.ledger, self.crd_check), self.details, self.refresh)
        server = WebServer(
            app,
            self.settings.http_port,
            name="probes",
            setting="VOUCHER_OPERATOR_HTTP_PORT",
            limits=probes.PORT_LIMITS,
        )
        serving = server.start()
        opened.push_async_callback(server.stop)
        return serving

    async def _serve(self, probing: asyncio.Task[None]) -> None:
        webhook = spawn(self._serve_webhooks(), "webhooks")
        self.leadership = Leadership(self.settings, self.election_api.client, self.lead)
        leading = asyncio.create_task(self.leadership.run(), name="leadership")
        stop = asyncio.create_task(self.stopping.wait(), name="signals")
        try:
            done, _ = await asyncio.wait([stop, leading, webhook, probing], return_when=asyncio.FIRST_COMPLETED)
            reason = "Signal" if stop in done else "Fault"
            log.info("stopping", extra={"resource": "process", "key": self.settings.pod_name, "reason": reason})
            if stop not in done:
                raise ended(done)
        finally:
            self._stop()
            await cancel(leading, stop, again_after=_CANCEL_LEADING_AGAIN)
            await cancel(webhook)

    async def _serve_webhooks(self) -> None:
        """Serve webhooks once there is a signing secret; without one no event could be verified."""
        while not self.settings.webhook_secrets():  # noqa: ASYNC110 - the file of a Secret sends no notification
            await asyncio.sleep(_SECRET_CHECK)
        # Imported late: Stripe's library is large, and not every Sovereign accepts cards.
        from voucher_operator.web.webhook import PORT_LIMITS, Webhook, application

        secrets, checkout = self.settings.webhook_secrets, self.checkout
        webhook = Webhook(
            secrets, checkout.payment_event, checkout.receive, self.relay.wake, self.settings.webhook_max_bytes
        )
        app = application(webhook)
        server = WebServer(
            app,
            self.settings.webhook_port,
            name="webhook",
            setting="VOUCHER_OPERATOR_WEBHOOK_PORT",
            limits=PORT_LIMITS,
        )
        serving = server.start()
        try:
            await asyncio.shield(serving)
        finally:
            await server.stop()

    async def lead(self) -> None:
        """Watch and reconcile until cancelled, or until the CRDs have a fault: then it is called again.

        Raises when one of the tasks ends for another cause, which is always a fault.
        """
        parts = build_controllers(
            Process(self.ledger, self.kube, self.recorder, self.catalog, self.checkout, self.settings)
        )
        # Payments and events go on whatever the state of the CRDs.
        own: list[asyncio.Task[Any]] = self._ledger_tasks(parts)
        draining: list[asyncio.Task[None]] = []
        try:
            await self._wait_for_crds(parts, own)
            self.queues = parts.feed.queues
            draining = [asyncio.create_task(queue.run(), name=f"queue {queue.name}") for queue in self.queues]
            own += self._own_tasks(parts)
            own += await self._watch(parts.feed, parts.vouchers)
            done, _ = await asyncio.wait([*own, *draining], return_when=asyncio.FIRST_COMPLETED)
            if not await crds.log_fault(self.crd_check):
                raise ended(done)
        finally:
            with TimeLimit(self.settings.stop_timeout, "the controllers"):
                await uninterrupted(self._end_term(own, draining))

    async def _end_term(self, own: Sequence[asyncio.Task[Any]], draining: list[asyncio.Task[None]]) -> None:
        self.crd_check.release()
        await cancel(*own, *kopf_internals.orphaned_tasks())
        await self._drain(draining)
        self.queues = []

    async def _release_vouchers(self, parts: Controllers) -> None:
        await self.revocations.release_all(parts.vouchers, self.kube, self.settings.namespaces)
        await parts.unserved.release()
        await self.recorder.drain(2.0)

    async def _wait_for_crds(self, parts: Controllers, own: Sequence[asyncio.Task[Any]]) -> None:
        served = crds.wait_until_served(self.crd_check, lambda: self._release_vouchers(parts))
        waiting = spawn(served, "crds")
        try:
            done, _ = await asyncio.wait([waiting, *own], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(waiting)
        if waiting not in done:
            raise ended(done)
        waiting.result()

    def _ledger_tasks(self, parts: Controllers) -> list[asyncio.Task[Any]]:
        """Start the tasks of this term as leader that need no Voucher and no Redemption; none ends by itself."""
        return [
            spawn(self.recorder.run(), "events"),
            *(spawn(work(), name) for name, work in parts.ledger_tasks.items()),
            spawn(self.relay.run(), "relay"),
            spawn(every(_PURGE, self.ledger.purge), "purge"),
            spawn(every(_STALE_SESSIONS, self.ledger.end_stale_sessions), "stale sessions"),
        ]

    def _own_tasks(self, parts: Controllers) -> list[asyncio.Task[Any]]:
        """Start the other tasks beside the watches; none of them ends by itself."""
        return [
            *(spawn(work(), name) for name, work in parts.tasks.items()),
            spawn(crds.watch_until_fault(self.crd_check), "crds"),
        ]

    async def _watch(self, feed: Feed, vouchers: VoucherController) -> list[asyncio.Task[Any]]:
        """Start kopf's tasks without its `run_tasks`, which would cancel every task that was started later."""
        discovery = kopf_internals.Discovery()
        tasks = await kopf.spawn_tasks(
            registry=watch.build(feed, vouchers, self.revocations),
            settings=watch.settings(),
            memories=kopf_internals.TransientMemories(),
            namespaces=self.settings.namespaces,
            insights=discovery.insights,
        )
        self._handle_signals()  # kopf has just replaced them by its own
        return [*tasks, spawn(discovery.check([kind.plural for kind in EXPECTED_CRDS]), "discovery")]

    async def _drain(self, draining: list[asyncio.Task[None]]) -> None:
        for queue in self.queues:
            queue.stop()
        if draining:
            _, late = await asyncio.wait(draining, timeout=_DRAIN)
            await cancel(*late)
        await self.recorder.drain(2.0)

    def _fence(self) -> None:
        """Raise LeaseExpiredError when another replica may lead. Whatever the leader writes asks it first."""
        if self.leadership is not None:
            self.leadership.check()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        """Begin to stop, and limit the time that it may take."""
        if not self.stopping.is_set():
            self.stopping.set()
            self.stop_limit.start()

    def details(self) -> dict[str, object]:
        """Return more facts for /readyz."""
        leads = self.leadership is not None and self.leadership.leads
        found: dict[str, object] = {"leader": leads, "queues": {queue.name: len(queue) for queue in self.queues}}
        if (clock := difference(self.ledger.clock_offset)) is not None:
            found["clock"] = clock
        return found | ({"outbox": outbox} if (outbox := self.relay.details()) else {})

    def refresh(self) -> None:
        """Update the gauges."""
        for queue in self.queues:
            telemetry.QUEUE_LENGTH.labels(queue.name).set(len(queue))


async def run(settings: Settings) -> None:
    """Run one replica until SIGTERM or SIGINT."""
    await Operator(settings).run()

"""kopf, set up to do what it is good at.

Watch both resources, and hold Vouchers by a finalizer until their code is revoked.

Its handlers only put keys into the work queues: a kopf handler that fails sleeps in one of `worker_limit` slots, so
it would take fifty waiting resources to stop all others. The generation in `status.observedGeneration` is the only
mark, and it is written by `status` together with the conditions: kopf itself writes nothing but the finalizer, and its
count of tries (`status.kopf`) while a deleted Voucher cannot be revoked.
See also: `queue`, `cache`, `vouchers.VoucherController.revoke`; `process.run` runs what `build` returns.
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import kopf
from kopf._cogs.clients.scanning import scan_resources
from kopf._cogs.clients.watching import infinite_watch

from voucher_operator.controllers.voucher.controller import FINALIZER, VoucherController
from voucher_operator.kube import client as kube
from voucher_operator.kube.cache import Cache, key_of
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.resources.errors import TransientError

_REVOKE_RETRY = 3.0
_UNFINISHED = "status.finished!=true"


class GenerationMark(kopf.DiffBaseStorage):
    """Tells kopf that an object was handled when `status.observedGeneration` says so; stores nothing itself."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:  # noqa: ARG002 - kopf's signature
        """Return the only thing that counts as a change."""
        return {"generation": body["metadata"].get("generation")}

    def fetch(self, *, body: kopf.Body) -> Any:
        """Return what was handled last, or None."""
        seen = (body.get("status") or {}).get("observedGeneration", -1)
        return None if seen < 0 else {"generation": seen}

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Write nothing: the reconcilers set the mark in the same patch as the conditions."""


class UnboundedBackoff(Iterable[float]):
    """The pauses between kopf's tries of one call, in seconds; without an end, unlike kopf's own.

    When kopf gives up, it ends the watches of all namespaces: one whose Role is gone would stop the others.
    """

    def __iter__(self) -> Iterator[float]:
        """Begin anew."""
        return itertools.chain((0.5, 1.0, 2.0, 3.0), itertools.repeat(5.0))


@dataclass(frozen=True, slots=True)
class Feed:
    """Where watch events go."""

    voucher_cache: Cache
    voucher_queue: WorkQueue
    redemption_cache: Cache
    redemption_queue: WorkQueue
    order_queue: WorkQueue
    """Redemptions with an order: what waits for the payment processor stops no other."""

    @property
    def queues(self) -> list[WorkQueue]:
        """All of them."""
        return [self.voucher_queue, self.redemption_queue, self.order_queue]

    def voucher(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Take note of a Voucher; one that backs off is not hurried by the echo of its own status."""
        key = key_of(body)
        if gone:
            self.voucher_cache.drop_object(body)
            self.voucher_queue.add(key)
            return
        before, now = self.voucher_cache.get(key), self.voucher_cache.put(body)
        if not self.voucher_queue.waits(key) or _generation(before) != _generation(now):
            self.voucher_queue.add(key)

    def redemption(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Take note of an unfinished Redemption; its spec cannot change, so one that is known needs no hurry."""
        key = key_of(body)
        queue = self.order_queue if "order" in body.get("spec", {}) else self.redemption_queue
        if gone:
            # Not what has its name by now: kopf hands over the events of two objects in any order.
            self.redemption_cache.drop_object(body)
            queue.add(key)
            return
        before, now = self.redemption_cache.get(key), self.redemption_cache.put(body)
        if not queue.knows(key) or _generation(before) != _generation(now):
            queue.add(key)


def _generation(body: Mapping[str, Any] | None) -> tuple[str, int, str] | None:
    if body is None:
        return None
    metadata = body["metadata"]
    return metadata["uid"], metadata["generation"], metadata.get("deletionTimestamp", "")


def build(feed: Feed, controller: VoucherController, release_after: float) -> kopf.OperatorRegistry:
    """Make kopf's registry: two watchers and one delete handler."""
    registry = kopf.OperatorRegistry()

    @kopf.on.event(kube.GROUP, kube.VERSION, kube.VOUCHERS, registry=registry)
    async def voucher_seen(event: kopf.RawEvent, **_: Any) -> None:
        feed.voucher(event["object"], gone=event["type"] == "DELETED")

    @kopf.on.event(kube.GROUP, kube.VERSION, kube.REDEMPTIONS, registry=registry)
    async def redemption_seen(event: kopf.RawEvent, **_: Any) -> None:
        feed.redemption(event["object"], gone=event["type"] == "DELETED")

    @kopf.on.delete(kube.GROUP, kube.VERSION, kube.VOUCHERS, registry=registry, id="revoke")
    async def voucher_deleted(body: kopf.Body, runtime: Any, **_: Any) -> None:
        try:
            await controller.revoke(dict(body))
        except TransientError as error:
            if runtime.total_seconds() >= release_after:
                controller.release_finalizer(dict(body), error)
                return
            raise kopf.TemporaryError(error.message, delay=_REVOKE_RETRY) from None

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # not in a thread: a stop could come in between
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return registry


def settings() -> kopf.OperatorSettings:
    """The settings of kopf; docs/architecture.md has the reasons."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.persistence.finalizer = FINALIZER
    chosen.persistence.diffbase_storage = GenerationMark()
    chosen.persistence.progress_storage = kopf.StatusProgressStorage(
        field="status.kopf.progress", touch_field="status.kopf.dummy"
    )
    # Otherwise kopf kills the whole process ten minutes after a lost Lease, when all is well again.
    chosen.process.ultimate_exiting_timeout = None
    chosen.networking.error_backoffs = UnboundedBackoff()
    chosen.queueing.worker_limit = 50
    chosen.queueing.idle_timeout = 0.02
    # One list of all that waits, as text and parsed, would be the process' largest possession.
    chosen.watching.chunk_size = 200
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 10
    chosen.watching.inactivity_timeout = 70
    chosen.watching.reconnect_backoff = 0.5
    chosen.watching.field_selectors[kube.GROUP, kube.REDEMPTIONS] = _UNFINISHED
    return chosen


def orphaned_tasks() -> set[asyncio.Task[Any]]:
    """Return kopf's questions of what the cluster serves, which it forgets when it is cancelled while they are asked.

    They would go on, and with a new session that nobody closes; cancel them together with kopf's own tasks.
    """
    return {task for task in asyncio.all_tasks() if _asks(task.get_coro())}


def handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle what the event loop complains of as ever, except for kopf's stream of events.

    kopf leaves it open when it is cancelled while it hands on an event, and Python cannot always close it later
    ("generator didn't stop after athrow()"); nothing of it is needed any more.
    """
    if getattr(context.get("asyncgen"), "ag_code", None) is not infinite_watch.__code__:
        loop.default_exception_handler(context)


def _asks(coro: object) -> bool:
    code = getattr(coro, "cr_code", None)
    return code is not None and code.co_filename == scan_resources.__code__.co_filename

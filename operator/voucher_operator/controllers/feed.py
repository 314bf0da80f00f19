"""Where watch events and lists go: into the caches, and as keys into the work queues.

See also: `watch` and `resync` feed it; `wiring` makes it; the reconcilers read the caches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voucher_operator.kube.cache import Cache, key_of
from voucher_operator.kube.work_queue import WorkQueue


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

    def requeue_voucher(self, key: str) -> None:
        """Reconcile a Voucher, unless it backs off."""
        if not self.voucher_queue.is_backing_off(key):
            self.voucher_queue.add(key)

    def requeue_vouchers(self) -> None:
        """Reconcile all Vouchers, except those that back off."""
        for key in self.voucher_cache:
            self.requeue_voucher(key)

    def voucher(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Take note of a Voucher; one that backs off is not requeued by the watch event of its own status."""
        key = key_of(body)
        if gone:
            self.voucher_cache.drop_object(body)
            self.voucher_queue.add(key)
            return
        before, now = self.voucher_cache.get(key), self.voucher_cache.put(body)
        if not self.voucher_queue.is_backing_off(key) or _generation(before) != _generation(now):
            self.voucher_queue.add(key)

    def redemption(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Take note of an unfinished Redemption; its spec cannot change, so one that is queued is not added again."""
        key = key_of(body)
        queue = self.order_queue if "order" in body.get("spec", {}) else self.redemption_queue
        if gone:
            # Not what has its name by now: kopf delivers the events of two objects in any order.
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

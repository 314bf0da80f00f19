"""Puts resources from watch events and lists into the caches, and their keys into the work queues.

See also: `watch` and `resync` call it; `wiring` builds it; the controllers read the caches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from voucher_operator.kube.cache import Cache, Version, key_of
from voucher_operator.kube.fairness import Flow
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.resources import conditions
from voucher_operator.resources.reasons import Reason

_WAITS_ALONE: Final = frozenset({Reason.SECRET_NOT_FOUND, Reason.SECRET_UNREADABLE, Reason.TOO_MANY_ATTEMPTS})
"""Reasons for which each Redemption waits by itself; for the others, such as an unavailable ledger, all wait."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Caches and work queues of the two kinds."""

    voucher_cache: Cache
    voucher_queue: WorkQueue
    redemption_cache: Cache
    redemption_queue: WorkQueue
    order_queue: WorkQueue
    """Redemptions with an order: waiting for the payment processor does not delay the other Redemptions."""

    @property
    def queues(self) -> list[WorkQueue]:
        """All work queues."""
        return [self.voucher_queue, self.redemption_queue, self.order_queue]

    def requeue_voucher(self, key: str) -> None:
        """Reconcile a Voucher, unless it is in backoff."""
        if not self.voucher_queue.is_backing_off(key):
            self.voucher_queue.add(key)

    def requeue_vouchers(self) -> None:
        """Reconcile all Vouchers, except those in backoff."""
        for key in self.voucher_cache:
            self.requeue_voucher(key)

    def voucher(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Process a seen or deleted Voucher; one in backoff is not requeued by the watch event of its own status."""
        key = key_of(body)
        if gone:
            self.voucher_cache.drop_object(body)
            self.voucher_queue.add(key)
            return
        before = self.voucher_cache.version(key)
        self.voucher_cache.put(body)
        if not self.voucher_queue.is_backing_off(key) or not Version.of(body).shows_same_spec(before):
            self.voucher_queue.add(key)

    def redemption(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Process a seen or deleted unfinished Redemption; a queued one is not added again: its spec is immutable."""
        key = key_of(body)
        queue = self.order_queue if "order" in body.get("spec", {}) else self.redemption_queue
        if gone:
            # Not a newer object of the same name: kopf delivers the events of two objects in any order.
            self.redemption_cache.drop_object(body)
            queue.add(key)
            return
        before, now = self.redemption_cache.version(key), self.redemption_cache.put(body)
        if before is None and (since := _waits_since(now)) is not None:
            queue.resume(key, (datetime.now(UTC) - since).total_seconds())
        elif not queue.knows(key) or not Version.of(now).shows_same_spec(before):
            queue.add(key)


def customer_flow(key: str, body: Mapping[str, Any] | None) -> Flow:
    """Return namespace and customer of a Redemption, by which work is shared fairly; `body` None: it is deleted."""
    customer = body["spec"].get("customer") if body is not None else None
    return key.rpartition("/")[0], str(customer.get("userID", "")) if isinstance(customer, dict) else ""


def _waits_since(body: Mapping[str, Any]) -> datetime | None:
    """Return since when a Redemption waits, for one of the reasons `_WAITS_ALONE`; None for any other.

    A new leader finds thousands of them at once: they continue the backoff that the last one had reached.
    """
    for one in body["status"].get("conditions", ()):
        if one["type"] == conditions.RECONCILING and one["status"] == "True" and one["reason"] in _WAITS_ALONE:
            return conditions.parse_time(one["lastTransitionTime"])
    return None

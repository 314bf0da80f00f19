"""Limits concurrent calls of the payment processor: in all, and for each origin of orders.

A payment processor that hangs holds a call for many seconds. Neither all orders together nor those of one namespace may
hold every worker meanwhile. See also: `order` uses it; `kube.work_queue` retries an order that got no slot.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class CheckoutSlots:
    """Slots for calls; one quarter is kept for origins that hold less than a quarter."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._quarter = max(1, self._size // 4)
        self._held: Counter[str] = Counter()

    def is_full(self, origin: str) -> bool:
        """Whether an origin, such as a namespace, can get no slot now."""
        total = self._held.total()
        if self._held[origin] < self._quarter:
            return total >= self._size
        return total >= self._size - self._quarter

    @contextmanager
    def held(self, origin: str) -> Iterator[None]:
        """Hold a slot; check `is_full` in the same turn of the event loop."""
        self._held[origin] += 1
        try:
            yield
        finally:
            self._held[origin] -= 1
            if not self._held[origin]:
                del self._held[origin]

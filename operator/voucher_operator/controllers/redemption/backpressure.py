"""Delays requests to the ledger while many statuses wait to be written, so that the ledger gets larger batches.

The ledger handles thousands of requests a second, the API server hundreds of status patches. If every written status
released one more request, each ledger statement would have one request. Here requests wait while enough statuses are
pending, and continue together when these are written; when few statuses are pending, no request waits. Only statuses
of the same namespace count, and connections are shared fairly: a namespace with thousands of Redemptions does not delay
another one. See also: `request_builder` waits; `result_writer` writes; `kube.fairness` has the order.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from voucher_operator.kube.fairness import FairSlots, Flow


class Backpressure:
    """Call `wait` before the ledger, use `writing` around a status patch; at most `connections` patches run at once."""

    def __init__(self, connections: int) -> None:
        self._slots = FairSlots(connections)
        # Redemptions that cannot be decided leave connections to those that were.
        self._undecided = FairSlots(max(1, connections // 2))
        # With so many pending, all connections stay busy until the ledger has answered the next batch.
        self._limit = connections + connections // 2
        self._pending: Counter[str] = Counter()
        """Results that wait to be written, by namespace."""
        self._below_limit: dict[str, asyncio.Event] = {}
        """Of each namespace that has reached the limit."""

    async def wait(self, flow: Flow) -> None:
        """Wait while the namespace has reached the limit of pending results."""
        if (below := self._below_limit.get(flow[0])) is not None:
            await below.wait()

    @asynccontextmanager
    async def writing(self, flow: Flow, *, undecided: bool = False) -> AsyncIterator[None]:
        """Wait for a free connection, and hold it; `undecided`: the status says that the Redemption waits."""
        async with AsyncExitStack() as stack:
            if undecided:
                await stack.enter_async_context(self._undecided.held(flow))
            else:
                stack.enter_context(self._counted(flow[0]))
            await stack.enter_async_context(self._slots.held(flow))
            yield

    @contextmanager
    def _counted(self, namespace: str) -> Iterator[None]:
        self._pending[namespace] += 1
        if self._pending[namespace] >= self._limit:
            self._below_limit.setdefault(namespace, asyncio.Event())
        try:
            yield
        finally:
            self._pending[namespace] -= 1
            if self._pending[namespace] < self._limit and (below := self._below_limit.pop(namespace, None)) is not None:
                below.set()
            if not self._pending[namespace]:
                del self._pending[namespace]

"""Delays requests to the ledger while many statuses wait to be written, so that the ledger gets larger batches.

The ledger handles thousands of requests a second, the API server hundreds of status patches. If every written status
released one more request, each ledger statement would have one request. Here requests wait while enough statuses are
pending, and continue together when these are written; when few statuses are pending, no request waits. See also:
`request_builder` waits; `result_writer` writes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Backpressure:
    """Call `wait` before the ledger, use `writing` around a status patch; at most `connections` patches run at once."""

    def __init__(self, connections: int) -> None:
        self._slots = asyncio.Semaphore(connections)
        # With so many pending, all connections stay busy until the ledger has answered the next batch.
        self._limit = connections + connections // 2
        self._pending = 0
        self._below_limit = asyncio.Event()
        self._below_limit.set()

    async def wait(self) -> None:
        """Wait while the limit of pending statuses is reached."""
        await self._below_limit.wait()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Wait for a free connection, and hold it."""
        self._pending += 1
        if self._pending >= self._limit:
            self._below_limit.clear()
        try:
            async with self._slots:
                yield
        finally:
            self._pending -= 1
            if self._pending < self._limit:
                self._below_limit.set()

"""Holds requests to the ledger back while many statuses wait to be written, so that they travel together.

The ledger takes thousands of requests a second, the API server hundreds of statuses. If every status that is written
released one more request, each ledger statement would carry one. Here requests gather while enough statuses wait to be
written, and go on together when those run out; when few wait, nobody does. See also: `request_builder` waits,
`result_writer` writes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Backpressure:
    """`wait` goes before the ledger, `writing` around a status patch; `connections` patches are under way at once."""

    def __init__(self, connections: int) -> None:
        self._slots = asyncio.Semaphore(connections)
        # Keeps all connections busy until the ledger has answered the next batch.
        self._enough = connections + connections // 2
        self._behind = 0
        self._running_out = asyncio.Event()
        self._running_out.set()

    async def wait(self) -> None:
        """Wait while enough statuses wait to be written."""
        await self._running_out.wait()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Wait for a connection's turn and hold it."""
        self._behind += 1
        if self._behind >= self._enough:
            self._running_out.clear()
        try:
            async with self._slots:
                yield
        finally:
            self._behind -= 1
            if self._behind < self._enough:
                self._running_out.set()

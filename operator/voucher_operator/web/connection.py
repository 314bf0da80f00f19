"""One connection to the webhook's port: nobody holds one for longer than an honest request takes.

Whoever calls may be anybody, and connections are few. uvicorn gives those that say nothing, or say it slowly, all the
time in the world, and counts them against its limit; here they have seconds, and one too many is turned away before it
costs anything. See also: `server`, which listens.
"""

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from voucher_operator import telemetry

MOST: Final = 256
"""Connections at once; each may hold a body of 64 KiB. Those beyond are told to come later."""
_READING: Final = 15.0
"""Seconds from the first moment until a request is here as a whole; longer than `webhook` waits for a body, which it
answers itself."""
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's, with a time limit for requests and a limit of its own number."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn it away, or begin to wait for its request."""
        full = len(self.connections) >= MOST
        super().connection_made(transport)
        if full:
            telemetry.WEBHOOKS.labels("busy").inc()
            transport.write(_BUSY)
            transport.close()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request, also of one that was answered already; between two, uvicorn waits."""
        super().data_received(data)
        if self.transport.is_closing() or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_watching()
        else:
            self._watch()

    def pause_writing(self) -> None:
        """Answers are small: it does not read them."""
        self.transport.abort()

    def _watch(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(_READING, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

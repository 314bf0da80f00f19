"""The only module that uses undocumented names of uvicorn: no signal handlers, and limits for each port.

No server with these limits as options was found (November 2026):

- uvicorn 0.54.0: `limit_concurrency` is checked when the headers of a request have arrived, so a connection that sends
  nothing stays open and counts; `timeout_keep_alive` applies only between two requests. Time limits for a request are
  its issue 157, which was closed without them.
- hypercorn 0.18.0: `read_timeout` is for one read, so each byte restarts it, and it also ends a request whose response
  takes longer; no limit of the number of connections.
- granian 2.8.9: a time limit for headers, none for a body; no limit of the number of connections.

`tests/unit/test_uvicorn_internals.py` fails when an upgrade of uvicorn changes one of the names. See also: `server`.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_MARGIN: Final = 5
"""Seconds after `Limits.stopping` after which uvicorn itself cancels the remaining requests, and logs an error."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one port."""

    connections: int
    """Maximum number of connections; one more is answered with 503 and closed."""
    reading: float
    """Seconds from the start of a connection, or of its next request, until the whole request must have arrived."""
    stopping: float
    """Seconds in which running requests must finish when the server stops."""
    busy: Callable[[], None] = lambda: None
    """Called for each connection over the limit."""


class Config(uvicorn.Config):
    """The options of one port; the process configures the logs."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(limits.stopping) + _MARGIN,
        )
        self.limits = limits


class Server(uvicorn.Server):
    """uvicorn's server without signal handlers: `process.run` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Keep the handlers of the process."""
        yield

    def begin_stop(self) -> None:
        """Accept no more connections, and end when the running requests are answered."""
        self.should_exit = True

    def cancel_requests(self) -> None:
        """Cancel the tasks of the running requests."""
        for task in tuple(self.server_state.tasks):
            task.cancel()


class Connection(H11Protocol):
    """uvicorn's connection with the limits of its port."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection, or start the deadline of its first request."""
        full = len(self.connections) >= self._limits.connections
        super().connection_made(transport)
        if full:
            self._limits.busy()
            transport.write(_BUSY)
            transport.close()
        else:
            self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Keep the deadline until a request has arrived completely; between two requests uvicorn's limit applies."""
        super().data_received(data)
        if self.transport.is_closing() or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_deadline()
        else:
            self._start_deadline()

    def pause_writing(self) -> None:
        """Close the connection: responses are small, so the caller does not read them."""
        self.transport.abort()

    @property
    def _limits(self) -> Limits:
        return cast("Config", self.config).limits

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.reading, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

"""What we change in uvicorn by names that it does not document: no signal handlers, and limits for each port.

Looked at for a server that has these limits as options, and found none (November 2026):

- uvicorn 0.54.0: `limit_concurrency` judges a connection when its request's headers have arrived, so one that sends
  nothing stays and counts; `timeout_keep_alive` runs between two requests only. Time limits for a request are its
  issue 157, closed without them.
- hypercorn 0.18.0: `read_timeout` is for one read, so a byte now and then renews it, and it also ends a request that
  takes us longer than that to answer; no limit of the number of connections.
- granian 2.8.9: a time limit for headers, none for a body; no limit of the number of connections.

`tests/unit/test_uvicorn_internals.py` fails when an upgrade of uvicorn moves one of the names. See also: `server`,
which listens.
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
"""Seconds after `Limits.stopping` at which uvicorn itself, which logs it as an error, ends what is left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What all callers of one port may hold."""

    connections: int
    """Connections at once; one more is answered 503 and closed."""
    reading: float
    """Seconds from the first moment of a connection, or of its next request, until the whole request has arrived."""
    stopping: float
    """Seconds that requests under way have when the server stops."""
    busy: Callable[[], None] = lambda: None
    """Called for each connection that is one too many."""


class Config(uvicorn.Config):
    """The options of one port; logs are the process' own."""

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
    """uvicorn's, without handlers of signals: `process.run` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process' handlers in place."""
        yield

    def begin_stop(self) -> None:
        """Accept no more connections, and end when the requests under way are answered."""
        self.should_exit = True

    def cancel_requests(self) -> None:
        """Cancel the tasks of the requests under way."""
        for task in tuple(self.server_state.tasks):
            task.cancel()


class Connection(H11Protocol):
    """uvicorn's, within the limits of its port."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse it, or begin to wait for its request."""
        full = len(self.connections) >= self._limits.connections
        super().connection_made(transport)
        if full:
            self._limits.busy()
            transport.write(_BUSY)
            transport.close()
        else:
            self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request, also of one that is answered already; between two, uvicorn's limit holds."""
        super().data_received(data)
        if self.transport.is_closing() or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_deadline()
        else:
            self._start_deadline()

    def pause_writing(self) -> None:
        """End it: responses are small, so its caller does not read them."""
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

"""A uvicorn inside our event loop: it leaves signals, logs and the process' end to `process.run`.

See also: `webhook` is what it serves, `connection` bounds what a caller may hold.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from voucher_operator.resources.errors import AddressTakenError
from voucher_operator.web import connection

_GRACE: Final = 5
"""Seconds that calls under way may take when we stop."""


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not ours to handle: the runner listens to them."""
        yield


class WebServer:
    """One application on one port."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        """Prepare; nothing listens yet. Port 0: a free one."""
        self._address = (host, port)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=connection.Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self.port = port
        self.task: asyncio.Task[None] | None = None
        """Ends only by `stop`, or by a fault."""

    def start(self) -> asyncio.Task[None]:
        """Listen, and return what serves. Raises AddressTakenError."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            listener = socket.create_server(self._address, family=family, backlog=connection.MOST)
        except OSError as error:
            raise AddressTakenError(*self._address, "VOUCHER_OPERATOR_WEBHOOK_PORT", error) from None
        self.port = listener.getsockname()[1]
        self.task = asyncio.create_task(self._server.serve(sockets=[listener]), name="webhook")
        return self.task

    async def stop(self) -> None:
        """Take no more calls, finish those under way. A fault stays with `task`."""
        if self.task is not None:
            self._server.should_exit = True
            await asyncio.wait([self.task])

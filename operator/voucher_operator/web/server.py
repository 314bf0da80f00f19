"""A uvicorn inside our event loop for each port; signals and the end of the process stay with `process.run`.

See also: `probes` and `webhook`, which it serves; `uvicorn_internals`, which limits what callers may hold.
"""

import asyncio
import socket
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from voucher_operator.resources.errors import AddressTakenError
from voucher_operator.web.app import error_response
from voucher_operator.web.uvicorn_internals import Config, Limits, Server


class WebServer:
    """One application on one port."""

    def __init__(self, app: Starlette, host: str, port: int, *, name: str, setting: str, limits: Limits) -> None:
        """Prepare; nothing listens yet.

        Port 0 means a free one. `name` is that of the task, `setting` the environment variable that has the port.
        """
        self._address = (host, port)
        self._name = name
        self._setting = setting
        self._limits = limits
        self._server = Server(Config(_Stoppable(app), limits))
        self.port = port
        self.task: asyncio.Task[None] | None = None
        """Ends only by `stop`, or by a fault."""

    def start(self) -> asyncio.Task[None]:
        """Listen, and return the task that serves. Raises AddressTakenError."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            listener = socket.create_server(self._address, family=family, backlog=self._limits.connections)
        except OSError as error:
            raise AddressTakenError(*self._address, self._setting, error) from None
        self.port = listener.getsockname()[1]
        self.task = asyncio.create_task(self._server.serve(sockets=[listener]), name=self._name)
        return self.task

    async def stop(self) -> None:
        """Accept no more requests and finish those under way, or answer 503. A fault stays with `task`."""
        if self.task is not None:
            self._server.begin_stop()
            _, late = await asyncio.wait([self.task], timeout=self._limits.stopping)
            if late:
                self._server.cancel_requests()
                await asyncio.wait(late)


class _Stoppable:
    """Answers a request that `stop` cancels; uvicorn would log an error with a traceback for each."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            await error_response(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops")(scope, receive, send)

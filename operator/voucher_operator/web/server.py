"""A uvicorn server for each port, in the event loop of the process; `process.run` handles signals.

See also: `probes` and `webhook` are served; `uvicorn_internals` limits connections and time.
"""

import asyncio
import errno
import socket
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from voucher_operator.resources.errors import AddressInUseError
from voucher_operator.web.app import error_response
from voucher_operator.web.uvicorn_internals import Config, Limits, Server


class WebServer:
    """One application on one port."""

    def __init__(self, app: Starlette, port: int, *, name: str, setting: str, limits: Limits) -> None:
        """Prepare the server; it does not listen yet.

        Port 0 means any free port. `name` is the name of the task, `setting` the environment variable with the port.
        """
        self._name = name
        self._setting = setting
        self._limits = limits
        self._server = Server(Config(_Stoppable(app), limits))
        self.port = port
        self.task: asyncio.Task[None] | None = None
        """Ends only by `stop`, or by an error."""

    def start(self) -> asyncio.Task[None]:
        """Listen, and return the task that serves. Raises AddressInUseError."""
        try:
            listener = _listen(self.port, self._limits.connections)
        except OSError as error:
            raise AddressInUseError(self.port, self._setting, error) from None
        self.port = listener.getsockname()[1]
        self.task = asyncio.create_task(self._server.serve(sockets=[listener]), name=self._name)
        return self.task

    async def stop(self) -> None:
        """Accept no more requests; finish the running ones, or answer them with 503. An error stays in `task`."""
        if self.task is not None:
            self._server.begin_stop()
            _, late = await asyncio.wait([self.task], timeout=self._limits.stopping)
            if late:
                self._server.cancel_requests()
                await asyncio.wait(late)


def _listen(port: int, backlog: int) -> socket.socket:
    """Listen on all addresses of the pod, IPv4 and IPv6, as far as its network has them."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
    return socket.create_server(("", port), backlog=backlog)


class _Stoppable:
    """Responds to a request that `stop` cancels; otherwise uvicorn logs an error with a traceback for each."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            await error_response(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping")(scope, receive, send)

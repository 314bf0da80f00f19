"""Stripe for the tests: its own mock server, which holds each request against the published description of the API.

stripe-mock has no state and answers with fixtures. What needs state, faults or payments runs on
`scripted_stripe`. See also: `tools` builds the mock, `processes` runs it.
"""

import contextlib
import socket
from types import TracebackType
from typing import Self

from testbed.processes import Daemon, free_port, temporary_folder, wait_until
from testbed.tools import ensure


class StripeMock:
    """One stripe-mock on loopback, which also insists on the API version that it describes; a context manager."""

    def __init__(self) -> None:
        """Prepare; nothing runs yet."""
        self.port = 0
        self._resources = contextlib.ExitStack()
        self._server: Daemon | None = None

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start; return when it listens. Raises TestbedError."""
        folder = self._resources.enter_context(temporary_folder("stripe"))
        self.port = free_port()
        binary = ensure("stripe-mock") / "stripe-mock"
        address = f"127.0.0.1:{self.port}"
        # Nobody calls it; but its usual port may be taken by another one of these.
        secure = f"127.0.0.1:{free_port()}"
        self._server = Daemon(
            "stripe-mock",
            [binary, "-http-addr", address, "-https-addr", secure, "-strict-version-check"],
            folder / "stripe.log",
        )
        self._server.start()
        wait_until(self._listens, "port of stripe-mock", alive=self._server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it."""
        if self._server is not None:
            self._server.kill()
        self._resources.close()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2.0):
            return True
        return False

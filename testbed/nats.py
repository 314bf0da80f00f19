"""A real nats-server with JetStream, on one port and one store, however often it is stopped and started.

See also: `tools` builds it, `processes` runs it; tests of the outbox cut it off.
"""

import contextlib
import json
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.processes import Daemon, TestbedError, free_port, temporary_folder, wait_until
from testbed.tools import ensure


class NatsServer:
    """One server on loopback; a context manager. What JetStream stores outlives `stop` and `kill`, not `close`."""

    def __init__(
        self, *, password: str = "", max_payload: int | None = None, authorization: Mapping[str, object] | None = None
    ) -> None:
        """Prepare; nothing runs yet. With a `password` only the user `operator` with it is let in.

        `authorization` is nats-server's setting, for other logins.
        """
        self.port = 0
        self._settings: dict[str, object] = {"host": "127.0.0.1", "server_name": "testbed"}
        self._password = password
        if password:
            self._settings["authorization"] = {"user": "operator", "password": password}
        if authorization is not None:
            self._settings["authorization"] = dict(authorization)
        if max_payload is not None:
            self._settings["max_payload"] = max_payload
        self._resources = contextlib.ExitStack()
        self._server: Daemon | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it and remove what it stored."""
        self.close()

    @property
    def url(self) -> str:
        """The URL with the credentials."""
        login = f"operator:{self._password}@" if self._password else ""
        return f"nats://{login}127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """False before `start` and after `stop` and `kill`."""
        return self._server is not None and self._server.running

    def start(self) -> None:
        """Start, the first time on a free port; return when it answers. Raises TestbedError."""
        if self._server is None:
            self._server = self._create()
        self._server.start()
        wait_until(self._answers, "answer of nats-server", alive=self._server)

    def stop(self) -> None:
        """Stop it by its stop signal."""
        self._started().stop()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._started().kill()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP freezes it."""
        self._started().send(number)

    def close(self) -> None:
        """Kill it and remove what it stored."""
        if self.running:
            self.kill()
        self._resources.close()
        self._server = None

    def _create(self) -> Daemon:
        folder = self._resources.enter_context(temporary_folder("nats"))
        self.port = free_port()
        settings = {**self._settings, "port": self.port, "jetstream": {"store_dir": str(folder / "store")}}
        config = folder / "nats.conf"
        config.write_text(json.dumps(settings))
        return Daemon("nats-server", [_binary(), "--config", config], folder / "nats.log")

    def _answers(self) -> bool:
        """Whether it sends its INFO line, which it does when JetStream is ready too."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as link:
            return link.recv(4096).startswith(b"INFO ")
        return False

    def _started(self) -> Daemon:
        if self._server is None:
            raise TestbedError("nats-server was not started")
        return self._server


def _binary() -> Path:
    return ensure("nats") / "nats-server"

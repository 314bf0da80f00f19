"""Starts processes of the operator by fork, which is faster than a new interpreter.

Most of what the start of an operator costs is Python reading the modules. Here one process has read them, and each
replica is a fork of it, with its own environment, log and process group; it gets its own signals, and a parent waits
for its end as the kubelet does. `ForkServer` and `ForkedProcess` are the tests' side, `main` is the server.
What is as in a real start is what a process does after it has read its modules. Reading them late, or reading the
environment with them, is not: that is for replicas with an interpreter of their own, which `operator_process` starts
as well. All processes of one fork server share one hash seed.
See also: `operator_process`, `processes`.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from testbed.interpreter import ROOT, RUN_MODULE, environment
from testbed.processes import Daemon, Process, TestbedError, temporary_folder, wait_until

_START_TIMEOUT: Final = 60.0


class ForkServer:
    """Forks replicas, any number at a time; a context manager."""

    def __init__(self) -> None:
        """Prepare; nothing runs yet."""
        self._resources = contextlib.ExitStack()
        self.address = Path()
        """What another process needs to use it while it runs: see `attached`."""
        self._daemon: Daemon | None = None

    @classmethod
    def attached(cls, address: Path) -> "ForkServer":
        """Return the fork server that another process has started."""
        server = cls()
        server.address = address
        return server

    def __enter__(self) -> Self:
        """Start, and return when the modules are read. Raises TestbedError."""
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def wait_ready(self) -> None:
        """Wait until the modules are read. Raises TestbedError, with its last output when it has ended."""
        wait_until(self.address.exists, "socket of the fork server", alive=self._daemon)

    def start(self) -> None:
        """Start; returns at once."""
        folder = self._resources.enter_context(temporary_folder("fork-server"))
        self.address = folder / "socket"
        command = [sys.executable, "-c", RUN_MODULE, "testbed.fork_server", str(self.address)]
        env = environment("", {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"})
        self._daemon = Daemon("fork-server", command, folder / "log", env=env)
        self._daemon.start()
        self._resources.callback(self._daemon.kill)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End it; replicas are to be ended before."""
        self._resources.close()

    def run(self, arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command of `voucher-operator` with this whole environment, as `subprocess.run` would."""
        with temporary_folder("command") as folder:
            output, errors = folder / "output", folder / "errors"
            command = ForkedProcess("command", self, arguments, output, env=env, errors=errors)
            command.start()
            try:
                code = command.wait(300.0)
            finally:
                if command.running:
                    command.kill()
            return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())

    def fork(
        self, arguments: Sequence[str], env: Mapping[str, str], output: Path, errors: Path | None = None
    ) -> Process:
        """Start `voucher-operator` with these arguments and this whole environment.

        Its standard output is appended to `output`, its standard error to `errors`, or also to `output`.
        """
        request = {"arguments": list(arguments), "env": dict(env), "logs": [str(output), str(errors or output)]}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.address))
            connection.sendall(json.dumps(request).encode() + b"\n")
            return _Child(connection)


class ForkedProcess(Daemon):
    """A process of `voucher-operator` that a fork server starts."""

    def __init__(
        self,
        name: str,
        fork_server: ForkServer,
        arguments: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str],
        errors: Path | None = None,
    ) -> None:
        """Prepare; as Daemon. Its standard error goes to the log, too, unless there is a file for `errors`."""
        super().__init__(name, arguments, log, env=env)
        self._fork_server = fork_server
        self._errors = errors

    def _spawn(self) -> Process:
        return self._fork_server.fork(self._command, self._env or {}, self.log, self._errors)


class _Child:
    """What `subprocess.Popen` would be, for a process that somebody else waits for: a Process."""

    def __init__(self, connection: socket.socket) -> None:
        # Without a buffer: what is in one is not seen by `select`.
        self._answers = connection.makefile("rb", buffering=0)
        self._code: int | None = None
        if not select.select([self._answers], [], [], _START_TIMEOUT)[0]:
            raise TestbedError(f"the fork server has not answered within {_START_TIMEOUT:g} s")
        self.pid = self._read()

    def poll(self) -> int | None:
        if self._code is None and select.select([self._answers], [], [], 0)[0]:
            with self._answers:
                self._code = self._read()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None and not select.select([self._answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("voucher-operator", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            # It may have ended a moment ago.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def _read(self) -> int:
        line = self._answers.readline()
        if not line:
            raise TestbedError("the fork server has ended before its child")
        return int(line)


def main(address: str) -> None:
    """Read the modules, then fork a process for each request at a socket."""
    # The operator imports some of these only when it needs them: import them once, here.
    import voucher_operator.payments.stripe_gateway
    import voucher_operator.process.run
    import voucher_operator.web.webhook  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    # Bound under another name first: who sees the socket can connect to it.
    listener.bind(address + ".new")
    listener.listen(64)
    # So the children's garbage collector does not look at these objects again.
    gc.freeze()
    os.rename(address + ".new", address)
    while True:
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                _fork_and_wait(connection)


def _fork_and_wait(connection: socket.socket) -> NoReturn:
    """Fork a replica and wait for its end; never returns, neither here nor there."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("r") as requests:
        request = json.loads(requests.readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(request)
    with contextlib.suppress(OSError):
        # Before the parent knows the pid: it kills the group.
        os.setpgid(pid, pid)
    _answer(connection, pid)
    _, status = os.waitpid(pid, 0)
    _answer(connection, os.waitstatus_to_exitcode(status))
    os._exit(0)


def _answer(connection: socket.socket, number: int) -> None:
    # The parent may have ended.
    with contextlib.suppress(OSError):
        connection.sendall(f"{number}\n".encode())


def _run(request: Mapping[str, Any]) -> NoReturn:
    from kubernetes.aio.config import kube_config

    from voucher_operator import cli, telemetry

    # Otherwise it has the time at which the fork server started.
    telemetry.API_LIVENESS.record_response()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for stream, log in zip((sys.stdout, sys.stderr), request["logs"], strict=True):
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, stream.fileno())
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    # The library has read this one with its modules.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "")
    sys.exit(cli.main(request["arguments"]))


if __name__ == "__main__":
    main(sys.argv[1])

"""Replicas at the price of a fork.

Most of what the start of an operator costs is Python reading the modules. Here one process has read them, and each
replica is a fork of it: with its own environment, log and process group, killed by its own signals, its end seen by a
parent as the kubelet would see it. `Nursery` and `Newborn` are the tests' side, `main` the other one.
What is as in a real start is what a process does after it has read its modules. Reading them late, or reading the
environment with them, is not: that is for replicas with an interpreter of their own, which `operator_process` starts
as well. All of one nursery share the seed of their hashes.
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

from testbed.interpreter import AS_IN_THE_IMAGE, ROOT, environment
from testbed.processes import Daemon, Process, TestbedError, temporary_folder, wait_until

_BIRTH: Final = 60.0


class Nursery:
    """Where replicas are born, in any number at a time; a context manager."""

    def __init__(self) -> None:
        """Prepare; nothing runs yet."""
        self._resources = contextlib.ExitStack()
        self.address = Path()
        """What another process needs to use it while it runs: see `joined`."""
        self._daemon: Daemon | None = None

    @classmethod
    def joined(cls, address: Path) -> "Nursery":
        """Return the nursery that another process has started."""
        guest = cls()
        guest.address = address
        return guest

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
        """Wait until the modules are read. Raises TestbedError, with the last words of a nursery that has ended."""
        wait_until(self.address.exists, "socket of the nursery", alive=self._daemon)

    def start(self) -> None:
        """Start; returns at once."""
        folder = self._resources.enter_context(temporary_folder("nursery"))
        self.address = folder / "socket"
        command = [sys.executable, "-c", AS_IN_THE_IMAGE, "testbed.nursery", str(self.address)]
        env = environment("", {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"})
        self._daemon = Daemon("nursery", command, folder / "log", env=env)
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
            command = Newborn("command", self, arguments, output, env=env, errors=errors)
            command.start()
            try:
                code = command.wait(300.0)
            finally:
                if command.running:
                    command.kill()
            return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())

    def bear(
        self, arguments: Sequence[str], env: Mapping[str, str], output: Path, errors: Path | None = None
    ) -> Process:
        """Begin `voucher-operator` with these arguments and this whole environment.

        What it prints is appended to `output`; its complaints, too, or to `errors`.
        """
        order = {"arguments": list(arguments), "env": dict(env), "logs": [str(output), str(errors or output)]}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.address))
            connection.sendall(json.dumps(order).encode() + b"\n")
            return _Child(connection)


class Newborn(Daemon):
    """A process of `voucher-operator` that is born in a nursery."""

    def __init__(
        self,
        name: str,
        nursery: Nursery,
        arguments: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str],
        errors: Path | None = None,
    ) -> None:
        """Prepare; as Daemon. Its complaints go to the log, too, unless there is a file for `errors`."""
        super().__init__(name, arguments, log, env=env)
        self._nursery = nursery
        self._errors = errors

    def _spawn(self) -> Process:
        return self._nursery.bear(self._command, self._env or {}, self.log, self._errors)


class _Child:
    """What `subprocess.Popen` would be, for a process that somebody else waits for: a Process."""

    def __init__(self, connection: socket.socket) -> None:
        # Without a buffer: what is in one is not seen by `select`.
        self._answers = connection.makefile("rb", buffering=0)
        self._code: int | None = None
        if not select.select([self._answers], [], [], _BIRTH)[0]:
            raise TestbedError(f"the nursery has not answered within {_BIRTH:g} s")
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
            # Its end may not have been told yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def _read(self) -> int:
        line = self._answers.readline()
        if not line:
            raise TestbedError("the nursery has ended before its child")
        return int(line)


def main(address: str) -> None:
    """Read the modules, then give birth to whatever is ordered at a socket."""
    # The operator reads some of these late, or never: here they are to cost nothing more.
    import voucher_operator.payments.stripe_gateway
    import voucher_operator.process.run
    import voucher_operator.web.server  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    # Bound under another name first: who sees the socket can connect to it.
    listener.bind(address + ".new")
    listener.listen(64)
    # Its children have no use for looking through all of this again.
    gc.freeze()
    os.rename(address + ".new", address)
    while True:
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                _wait_beside(connection)


def _wait_beside(connection: socket.socket) -> NoReturn:
    """Bear a replica and wait for its end; never returns, neither here nor there."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("r") as orders:
        order = json.loads(orders.readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _live(order)
    with contextlib.suppress(OSError):
        # Before anybody knows it: who kills it kills its group.
        os.setpgid(pid, pid)
    _answer(connection, pid)
    _, status = os.waitpid(pid, 0)
    _answer(connection, os.waitstatus_to_exitcode(status))
    os._exit(0)


def _answer(connection: socket.socket, number: int) -> None:
    # Nobody may be there any more.
    with contextlib.suppress(OSError):
        connection.sendall(f"{number}\n".encode())


def _live(order: Mapping[str, Any]) -> NoReturn:
    from kubernetes.aio.config import kube_config

    from voucher_operator import cli, telemetry

    # It is as old as the nursery otherwise.
    telemetry.API_LIVENESS.now()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for stream, log in zip((sys.stdout, sys.stderr), order["logs"], strict=True):
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, stream.fileno())
        os.close(file)
    os.environ.clear()
    os.environ.update(order["env"])
    # The library has read this one with its modules.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "")
    sys.exit(cli.main(order["arguments"]))


if __name__ == "__main__":
    main(sys.argv[1])

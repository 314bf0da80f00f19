"""Long-running processes of the test bed: start, stop, wait for, and end with this process.

See also: `reaper` ends them when this process ends; `control_plane`, `postgres` and `operator_process` use it.
"""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from testbed import reaper

# Below the ports that the kernel hands to outgoing connections: none of those takes a server's port while it restarts.
# Not the seeded generator: every test would start at the same port.
_PORTS = range(18000, 32000)
_random = random.SystemRandom()
_SHARED_MEMORY = Path("/dev/shm")
_MIN_FREE_BYTES = 4 * 1024**3


class TestbedError(Exception):
    """A part of the test bed did not do what it was asked for; the message ends with its last output."""

    __test__ = False


class _ReaperPipe:
    """The pipe to the reaper process, which starts with the first line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def send(self, line: str) -> None:
        with self._lock:
            if self._process is None or self._owner != os.getpid():
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _start(self) -> None:
        command = [sys.executable, "-I", "-S", str(reaper.__file__)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._owner = os.getpid()
        atexit.register(self._finish)

    def _finish(self) -> None:
        if self._process is None or self._process.stdin is None or self._owner != os.getpid():
            return
        self._process.stdin.close()
        self._process.wait()


_reaper = _ReaperPipe()


def free_port() -> int:
    """Return a TCP port of the loopback interface on which nobody listens now."""
    while True:
        port = _random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def temporary_folder(name: str, *, in_memory: bool = False) -> Iterator[Path]:
    """Make a folder that is removed at the end, also at the end of a killed process.

    `in_memory`: on a file system in memory where there is a large one, for what need not survive the machine.
    """
    place = _memory() if in_memory else None
    with tempfile.TemporaryDirectory(prefix=f"voucher-{name}-", dir=place, ignore_cleanup_errors=True) as folder:
        _reaper.send(f"folder {folder}")
        try:
            yield Path(folder)
        finally:
            _reaper.send(f"removed {folder}")


def _memory() -> Path | None:
    if not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return None
    return _SHARED_MEMORY if shutil.disk_usage(_SHARED_MEMORY).free > _MIN_FREE_BYTES else None


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60.0, alive: "Daemon | None" = None) -> None:
    """Poll `condition` with a short, growing pause.

    Raises TestbedError after `timeout` seconds, or as soon as the process `alive` has ended.
    """
    deadline = time.monotonic() + timeout
    pause = 0.01
    while not condition():
        if alive is not None and not alive.running:
            raise TestbedError(f"{alive.name} ended with code {alive.returncode} before {what}\n{alive.tail()}")
        if time.monotonic() > deadline:
            raise TestbedError(f"no {what} within {timeout:g} s" + (f"\n{alive.tail()}" if alive else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


class Process(Protocol):
    """What a daemon needs of a `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Process id, also of its group."""

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number when one ended it; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""


class Daemon:
    """One process in a group of its own, its output in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Prepare a process; `env` is its whole environment (default: ours), `user` a uid and gid to run as.

        `stop` sends it `stop_signal`; `orphan_signal` is what it gets when this process ends without stopping it.
        """
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._env = dict(env) if env is not None else None
        self._user = user
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._orphan_signal = orphan_signal
        self._process: Process | None = None
        self._registered: int | None = None

    @property
    def pid(self) -> int:
        """Process id. Raises TestbedError when it was never started."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """True from start to end of the process, also while it is stopped by SIGSTOP."""
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the signal's number when one ended it, None while it runs."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            self._unregister()
        return code

    def start(self) -> None:
        """Start the process; its output is appended to the log."""
        if self.running:
            raise TestbedError(f"{self.name} runs already")
        self._process = self._spawn()
        self._registered = self.pid
        _reaper.send(f"process {self.pid} {int(self._orphan_signal)}")

    def _unregister(self) -> None:
        """Say once to the reaper that it has ended: another process may get its pid."""
        if self._registered is not None:
            _reaper.send(f"ended {self._registered}")
            self._registered = None

    def _spawn(self) -> Process:
        # Without a group of its own, the root group's rights would stay with the unprivileged user.
        groups = {"user": self._user, "group": self._user, "extra_groups": []} if self._user is not None else {}
        with self.log.open("ab") as output:
            return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                **groups,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process (not to its children)."""
        self._started().send_signal(number)

    def stop(self, number: signal.Signals | None = None, timeout: float = 30.0) -> int:
        """End the process by a signal and return its exit code; one that ended already keeps its code.

        Raises TestbedError when it does not end within `timeout` seconds (it is killed then).
        """
        process = self._started()
        if process.poll() is None:
            process.send_signal(number or self._stop_signal)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TestbedError(f"{self.name} did not stop within {timeout:g} s\n{self.tail()}") from None
        self._unregister()
        return code

    def wait(self, timeout: float) -> int:
        """Wait for its end by itself, and return its exit code. Raises subprocess.TimeoutExpired."""
        code = self._started().wait(timeout)
        self._unregister()
        return code

    def kill(self) -> None:
        """End the process and its group by SIGKILL and wait for it."""
        process = self._started()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._unregister()

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _started(self) -> Process:
        if self._process is None:
            raise TestbedError(f"{self.name} was not started")
        return self._process

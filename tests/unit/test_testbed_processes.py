"""Processes of the test bed end with it, also when it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.processes import Daemon, TestbedError, wait_until

SCRIPT = """
import sys, threading
from pathlib import Path
from testbed.processes import Daemon, temporary_folder
with temporary_folder("test") as folder:
    daemon = Daemon("sleeper", ["sleep", "1000"], folder / "log")
    # In a thread that ends: a kernel's parent-death signal would fire here already.
    thread = threading.Thread(target=daemon.start)
    thread.start()
    thread.join()
    print(daemon.pid, folder, flush=True)
    sys.stdin.read()
"""


def test_processes_and_folders_end_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        os.kill(int(pid), 0)
        parent.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "end of the child", timeout=20)
    wait_until(lambda: not Path(folder).exists(), "removal of the folder", timeout=20)


def test_end_before_readiness_is_reported_with_the_last_output(tmp_path: Path) -> None:
    daemon = Daemon("speaker", ["sh", "-c", "echo no such option; exit 3"], tmp_path / "log")
    daemon.start()
    with pytest.raises(TestbedError, match="speaker ended with code 3 before readiness\nno such option"):
        wait_until(lambda: False, "readiness", alive=daemon)


def test_process_that_ignores_sigterm_is_killed_and_reported(tmp_path: Path) -> None:
    daemon = Daemon("stubborn", ["sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.05; done"], tmp_path / "log")
    daemon.start()
    wait_until(lambda: daemon.tail() == "on", "first word")
    with pytest.raises(TestbedError, match="stubborn did not stop within"):
        daemon.stop(timeout=0.1)
    assert daemon.returncode == -signal.SIGKILL

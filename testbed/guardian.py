"""Ends what its parent started, however the parent ends - also by SIGKILL.

Run as a script by `processes`, with a pipe from the parent as standard input; standard library only, to start at once.
(The kernel's parent-death signal is no substitute: it fires when the *thread* that started a process ends.)
A line is `process PID SIGNAL`, `gone PID`, `folder PATH` or `forget PATH`; end of file means that the parent is gone.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

PATIENCE = 10.0
"""Seconds that processes get to end before they are killed."""


def read_orders() -> tuple[dict[int, int], list[str]]:
    """Read until the parent is gone; return the signal of each process group that is left, and the folders."""
    processes: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        order, _, rest = line.rstrip("\n").partition(" ")
        if order == "process":
            pid, _, number = rest.partition(" ")
            processes[int(pid)] = int(number)
        elif order == "gone":
            processes.pop(int(rest), None)
        elif order == "folder":
            folders.append(rest)
        elif order == "forget" and rest in folders:
            folders.remove(rest)
    return processes, folders


def signal_group(pid: int, number: int) -> bool:
    """Signal a process group; false when it has ended."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    """Wait for the parent's end, then end its processes and remove its folders."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes, folders = read_orders()
    left = {pid for pid, number in processes.items() if signal_group(pid, number)}
    # A stopped process acts on a signal only when it goes on.
    for pid in left:
        signal_group(pid, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = {pid for pid in left if signal_group(pid, 0)}
    for pid in left:
        signal_group(pid, signal.SIGKILL)
    for folder in folders:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()

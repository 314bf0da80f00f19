"""Ends what its parent started, however the parent ends - also by SIGKILL.

Run as a script by `processes`, with a pipe from the parent as standard input; standard library only, to start at once.
(The kernel's parent-death signal is no substitute: it fires when the *thread* that started a process ends.)
A line is `process PID SIGNAL`, `ended PID`, `folder PATH` or `removed PATH`; end of file means that the parent is gone.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

GRACE_SECONDS = 10.0
"""Seconds that processes get to end before they are killed."""


def read_commands() -> tuple[dict[int, int], list[str]]:
    """Read until the parent is gone; return the signal of each process group that still runs, and the folders."""
    processes: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        if command == "process":
            pid, _, number = rest.partition(" ")
            processes[int(pid)] = int(number)
        elif command == "ended":
            processes.pop(int(rest), None)
        elif command == "folder":
            folders.append(rest)
        elif command == "removed" and rest in folders:
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
    processes, folders = read_commands()
    left = {pid for pid, number in processes.items() if signal_group(pid, number)}
    # A stopped process acts on a signal only when it goes on.
    for pid in left:
        signal_group(pid, signal.SIGCONT)
    deadline = time.monotonic() + GRACE_SECONDS
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

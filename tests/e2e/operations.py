"""Runs the commands of docs/operations.md as they are written there, so that they are known to work.

See also: test_removal.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

from testbed.processes import TestbedError, temporary_folder
from testbed.repository import ROOT
from tests.e2e.cluster import Kind

_PAGE = ROOT / "docs" / "operations.md"


def commands(heading: str) -> str:
    """Return the first block of commands below a heading. Raises TestbedError when there is none."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(?:(?!#).*\n)*?```sh\n((?:(?!```).*\n)*)", _PAGE.read_text(), re.M)
    if found is None:
        raise TestbedError(f"docs/operations.md has no commands below {heading!r}")
    return found[1]


def run(kind: Kind, heading: str, **variables: str) -> None:
    """Run those commands against the cluster, with kubectl on the path. Raises TestbedError."""
    with temporary_folder("operations") as folder:
        kubectl = folder / "kubectl"
        kubectl.write_text(f'#!/bin/sh\nexec {shlex.join(kind.command())} "$@"\n')
        kubectl.chmod(0o755)
        env = os.environ | variables | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands(heading)],
            env=env,
            cwd=Path(ROOT),
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise TestbedError(f"{heading}: {done.stdout}{done.stderr}")

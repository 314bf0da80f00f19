"""The version before this one: the sources of the commit that the file `previous-version` names.

See also: test_upgrade installs it and upgrades from it.
"""

import shutil
import subprocess
from pathlib import Path

from testbed.processes import TestbedError
from testbed.repository import ROOT

COMMIT = (Path(__file__).parent / "previous-version").read_text().strip()
# How an image is made is not what is tested: a version from before it was written down is built as the present one.
_RECIPE = ("Containerfile", ".dockerignore", "requirements/build.txt")


def sources(folder: Path) -> Path:
    """Write the previous version's files into `folder` and return it. Raises TestbedError."""
    archive = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True)
    if archive.returncode != 0:
        raise TestbedError(f"tests/e2e/previous-version: {COMMIT} is not in this clone; fetch the whole history")
    subprocess.run(["tar", "--extract", f"--directory={folder}"], input=archive.stdout, check=True)
    for name in _RECIPE:
        if not (folder / name).exists():
            shutil.copy(ROOT / name, folder / name)
    return folder

"""Files that name a package registry are found."""

import subprocess
from pathlib import Path

import pytest

from testbed.repository import named_hosts


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("FROM " + "docker" + ".io/library/python", "docker" + ".io"),
        ("https://files." + "pythonhosted" + ".org/x", "pythonhosted" + ".org"),
        ("registry: harbor.<sovereign's domain>", None),
        ("k8s.io/api v0.36.3", None),
    ],
)
def test_registry_names_are_reported(tmp_path: Path, line: str, named: str | None) -> None:
    (tmp_path / "file").write_text(f"first\n{line}\n")
    for command in (["init", "--quiet"], ["add", "file"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert list(named_hosts(tmp_path)) == ([f"file:2: names the registry {named}"] if named else [])

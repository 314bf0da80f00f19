"""The repository's own checks find their faults."""

import subprocess
from pathlib import Path

import pytest

from testbed.repository import lock_faults, named_hosts, pins

PROJECT = """
[project]
dependencies = ["kopf==1.45.2", "psycopg[binary]>=3.3"]
[dependency-groups]
dev = ["ruff==0.17.5"]
"""
HASH = " \\\n    --hash=sha256:00\n    # via x\n"
RUN = f"kopf==1.45.2{HASH}psycopg==3.3.9{HASH}"


def _project(root: Path, run: str, dev: str) -> list[str]:
    (root / "requirements").mkdir()
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "requirements" / "run.txt").write_text(run)
    (root / "requirements" / "dev.txt").write_text(dev)
    return list(lock_faults(root))


def test_matching_locks_have_no_fault(tmp_path: Path) -> None:
    assert _project(tmp_path, RUN, f"{RUN}ruff==0.17.5 ; python_version > '3'{HASH}") == []


@pytest.mark.parametrize(
    ("run", "dev", "fault"),
    [
        (RUN, RUN, "requirements/dev.txt: ruff==0.17.5 is asked for, nothing is locked"),
        (RUN.replace("1.45.2", "1.45.1"), RUN, "requirements/run.txt: kopf==1.45.2 is asked for, 1.45.1 is locked"),
        (RUN, RUN.replace("3.3.9", "3.4.0"), "requirements/dev.txt: not psycopg==3.3.9 as in run.txt"),
        (f"kopf==1.45.2\n    # via x\npsycopg==3.3.9{HASH}", RUN, "requirements/run.txt: no hash for kopf==1.45.2"),
    ],
)
def test_mismatched_locks_are_reported(tmp_path: Path, run: str, dev: str, fault: str) -> None:
    assert any(reported.startswith(fault) for reported in _project(tmp_path, run, dev))


def test_line_that_is_no_pin_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a pin: --find-links"):
        pins("--find-links mirror\nkopf==1.45.2\n")


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

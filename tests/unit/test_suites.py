"""No test is left out quietly: whoever adds a folder of tests says where it runs."""

import tomllib

from testbed.repository import ROOT

APART = {"tests/e2e", "tests/gitops"}
"""Run by a command of their own (`make e2e`), which CI runs as well."""


def test_every_folder_of_tests_is_run_somewhere() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {*options["testpaths"], *APART}


def test_what_runs_apart_is_run_by_ci() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert any(line.startswith("make e2e") for line in lines)
    assert f"pytest {' '.join(sorted(APART, reverse=True))}" in (ROOT / "Makefile").read_text()

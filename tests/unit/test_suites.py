"""Every folder of tests is run by a make target or by CI, and random choices can be repeated."""

import re
import tomllib

from testbed.repository import ROOT

APART = {"make e2e": "tests/gitops tests/e2e", "make stress": "tests/stress"}
"""Commands of their own, which CI runs as well, and their folders."""


def test_every_folder_of_tests_is_run_somewhere() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {*options["testpaths"], *" ".join(APART.values()).split()}


def test_suites_outside_make_test_are_run_by_ci() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    for command, folders in APART.items():
        assert any(line.startswith(command) for line in lines)
        assert f"pytest {folders}" in (ROOT / "Makefile").read_text()


def test_random_choices_of_chaos_tests_begin_with_the_seed_that_is_printed() -> None:
    """So that a failure can be repeated; a choice of the module `random` itself would have no seed."""
    for path in (ROOT / "tests" / "cluster").glob("*chaos*.py"):
        text = path.read_text()
        if path.name.startswith("test_") and "random.Random(" in text:
            assert "chaos_seed()" in text, path.name
        used = set(re.findall(r"\brandom\.(\w+)\(", text)) - {"Random"}
        assert used <= ({"getrandbits"} if path.name == "chaos.py" else set()), path.name

"""The files that a reader expects in a project are there, and say what the code and the Makefile say.

See also: `test_docs` holds the links and names in all pages, these ones included.
"""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.repository import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LICENSES = {"Apache-2.0": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"}
"""SPDX identifier -> SHA-256 of the licence's text as its owner publishes it."""
PACKAGE = ROOT / "operator" / "voucher_operator"
ADR = ROOT / "docs" / "adr"
DECISIONS = sorted(ADR.glob("[0-9]*.md"))
PARTS_OF_A_DECISION = ["Context", "Decision", "Consequences", "Alternatives considered"]


@pytest.mark.parametrize(
    ("name", "mentions"),
    [
        ("CONTRIBUTING.md", "make check"),
        ("SECURITY.md", "Reporting a vulnerability"),
        ("CHANGELOG.md", "Keep a Changelog"),
        ("docs/glossary.md", "Minor unit"),
    ],
)
def test_page_exists_with_its_subject_and_readme_links_to_it(name: str, mentions: str) -> None:
    assert mentions in (ROOT / name).read_text()
    assert f"]({name})" in (ROOT / "README.md").read_text()


def test_license_is_the_unchanged_text_of_the_one_in_pyproject() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == LICENSES[PROJECT["license"]]
    assert "](LICENSE)" in (ROOT / "README.md").read_text()


def test_changelog_begins_with_unreleased_and_has_the_present_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[([^\]]+)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["version"]]
    assert len(headings) == len(re.findall(r"^## ", text, re.MULTILINE))


def test_pre_commit_runs_each_command_of_make_check() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    assert [_command(hook["entry"]) for hook in repository["hooks"]] == _recipe("check")
    for hook in repository["hooks"]:
        # The files of a commit as arguments would be other commands than those of `make check`.
        assert (hook["language"], hook["pass_filenames"], hook["always_run"]) == ("system", False, True)


def _command(entry: str) -> str:
    return entry.removeprefix("env PYTHONPATH=operator ")


def _recipe(target: str) -> list[str]:
    """Return the commands of a target of the Makefile, its variables for .venv replaced."""
    (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    replaced = lines.replace("$(MAKE)", "make").replace("$(PY)", "$(VENV)/bin/python").replace("$(VENV)", ".venv")
    return [line.strip() for line in replaced.splitlines()]


def test_decisions_are_numbered_without_gaps_and_listed_in_their_index() -> None:
    assert [path.name[:5] for path in DECISIONS] == [f"{n:04}-" for n in range(1, len(DECISIONS) + 1)]
    listed = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| ([^|]+) \|", (ADR / "README.md").read_text(), re.MULTILINE)
    assert listed == [(path.name[:4], path.name, _title(path)) for path in DECISIONS]


def _title(path: Path) -> str:
    """Return what the heading says after the number: `# 0001: Lock order` is `Lock order`."""
    number, _, title = path.read_text().partition("\n")[0].removeprefix("# ").partition(": ")
    assert path.name.startswith(number)
    return title


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_all_parts_and_fits_a_page(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS_OF_A_DECISION
    assert re.search(r"^Status: (proposed|accepted|superseded by \[\d{4}\])", text, re.MULTILINE)
    assert len(text.split()) < 750


def test_glossary_is_in_alphabetical_order_and_explains_nothing_twice() -> None:
    sections = (ROOT / "docs" / "glossary.md").read_text().split("\n## ")[1:]
    words = [re.findall(r"^\*\*([^*]+)\*\*: ", section, re.MULTILINE) for section in sections]
    assert words == [sorted(section, key=str.casefold) for section in words]
    everything = [word for section in words for word in section]
    assert len(everything) == len(set(everything)) > 50


@pytest.mark.parametrize("path", [ROOT / "CONTRIBUTING.md", *DECISIONS], ids=lambda path: path.stem)
def test_files_that_a_page_names_exist(path: Path) -> None:
    named = re.findall(r"`((?:[a-z.][\w.-]*/)+[\w.-]*|\w+\.(?:py|sql|txt))`", path.read_text())
    assert [name for name in named if not _exists(name)] == []


def _exists(name: str) -> bool:
    """Whether it is a path from the root or from the package, or the bare name of one of its files of SQL."""
    if "/" not in name:
        return any((PACKAGE / "ledger").rglob(name)) or (PACKAGE / name).exists()
    return name.startswith("../") or (ROOT / name).exists() or (PACKAGE / name).exists()

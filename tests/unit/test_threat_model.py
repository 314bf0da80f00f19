"""docs/threat-model.md names modules, settings and tests that exist; SECURITY.md leads to it.

See also: `test_docs` holds the links of all pages.
"""

import ast
import re
from functools import cache

import yaml

from testbed.repository import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text()
PACKAGE = ROOT / "operator" / "voucher_operator"
PARTS = [
    "Assets",
    "Who is trusted with what",
    "What is defended where",
    "What is not defended",
    "When something is found",
]


def defences() -> list[list[str]]:
    """Return the cells of the table of threats, without its head."""
    (part,) = re.findall(r"^## What is defended where\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("threat", "---")]


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the test functions of a file."""
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_security_page_leads_to_the_threat_model_and_it_has_all_parts() -> None:
    assert "](docs/threat-model.md)" in (ROOT / "SECURITY.md").read_text()
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == PARTS


def test_each_threat_has_a_defence_a_module_and_a_test() -> None:
    assert len(defences()) > 20
    for row in defences():
        assert len(row) == 4, row
        assert re.findall(r"\]\(\.\./(?:operator|migrations|charts|crds)/", row[2]), row
        assert re.findall(r"`test_\w+`", row[3]), row


def test_each_test_that_it_names_is_in_the_file_that_it_links() -> None:
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", PAGE)
    assert len(named) == len(re.findall(r"`test_\w+`", PAGE))
    assert [(name, path) for name, path in named if name not in functions_of(path)] == []


def test_each_module_has_the_name_of_its_link() -> None:
    for text, path in re.findall(r"\[`([\w.]+)`\]\(\.\./operator/voucher_operator/([\w/.]+)\)", PAGE):
        assert path.removesuffix(".py").replace("/", ".").endswith(text.removesuffix(".py")) or path.endswith(text), (
            text
        )
        assert (PACKAGE / path).exists(), path


def test_each_chart_value_that_it_names_exists() -> None:
    values = yaml.safe_load((ROOT / "charts" / "bp-voucher-operator" / "values.yaml").read_text())
    for name in re.findall(r"value `([\w.]+)`", PAGE):
        found = values
        for part in name.split("."):
            assert part in found, name
            found = found[part]

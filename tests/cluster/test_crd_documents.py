"""The API server accepts the YAML in the pages and in examples/."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testbed.control_plane import ControlPlane
from tests.cluster.crd_rules import CRDS, CrdValidator, crd_validator

ROOT = CRDS.parent
PAGES = sorted((ROOT / "docs").glob("*.md")) + sorted(ROOT.glob("README.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def redemptions(control_plane: ControlPlane) -> Iterator[CrdValidator]:
    with crd_validator(control_plane, "Redemption", "crd-documents", "{}") as validator:
        yield validator


def documents(path: Path) -> str:
    """Return the YAML documents of a page or file that are of our kinds."""
    text = path.read_text()
    if path.suffix == ".md":
        text = "\n---\n".join(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    found = [one for one in yaml.safe_load_all(text) if one and one.get("kind") in ("Voucher", "Redemption")]
    for one in found:
        one["metadata"].pop("namespace", None)
    return yaml.safe_dump_all(found)


@pytest.mark.parametrize("path", [*PAGES, *EXAMPLES], ids=lambda path: path.name)
def test_documents_are_accepted(control_plane: ControlPlane, redemptions: CrdValidator, path: Path) -> None:
    if text := documents(path):
        arguments = ("create", "--dry-run=server", "--validate=strict", "-n", redemptions.namespace, "-f", "-")
        assert control_plane.kubectl(*arguments, input=text)


def test_pages_and_examples_have_documents() -> None:
    assert all(documents(ROOT / "docs" / name) for name in ("voucher.md", "redemption.md"))
    assert EXAMPLES

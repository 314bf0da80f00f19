"""The operator's image, as `docker inspect` sees it: who runs it, what it says it is, and what it adds to its base."""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from testbed.repository import ROOT
from tests.e2e import images

pytestmark = pytest.mark.usefixtures("built")

LARGEST = 150_000_000
"""Bytes that the image may add to its base."""


@dataclass(frozen=True)
class Layer:
    """One step of a recipe."""

    size: int
    """In bytes."""
    made_by: str


def _config() -> dict[str, Any]:
    (image,) = json.loads(images.docker("image", "inspect", images.OPERATOR))
    return dict(image["Config"])


def _layers(image: str) -> list[Layer]:
    """Return what an image was made of, oldest first."""
    lines = images.docker("history", "--no-trunc", "--human=false", "--format={{.Size}} {{.CreatedBy}}", image)
    parts = [line.partition(" ") for line in lines.splitlines() if line.strip()]
    return [Layer(int(size), made_by) for size, _, made_by in reversed(parts)]


@pytest.fixture
def added(pytestconfig: pytest.Config) -> list[Layer]:
    """What the recipe adds to its base."""
    named = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert named is not None
    base = _layers(pytestconfig.getoption("python_base") or named[1])
    whole = _layers(images.OPERATOR)
    assert whole[: len(base)] == base
    return whole[len(base) :]


def test_image_runs_as_a_numeric_user() -> None:
    """Kubernetes can tell that it is not root only from a number."""
    config = _config()
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["voucher-operator"]


def test_image_has_standard_labels() -> None:
    """By the labels that registries and scanners read."""
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in _config()["Labels"].items()}
    assert (labels["title"], labels["version"]) == ("voucher-operator", images.version())
    assert labels["revision"] == images.REVISION
    assert labels["source"].startswith("https://")
    assert {"description", "licenses", "vendor"} <= labels.keys()


def test_image_adds_less_than_the_limit(added: list[Layer]) -> None:
    """Of a Sovereign's node it takes no more than this."""
    assert 0 < sum(layer.size for layer in added) < LARGEST


def test_package_layer_is_small(added: list[Layer]) -> None:
    """The dependencies come first and are shared; the operator's own code lies on top."""
    dependencies, package = [layer for layer in added if "COPY" in layer.made_by]
    assert "/opt/venv" in dependencies.made_by
    assert package.size < 5_000_000 < dependencies.size

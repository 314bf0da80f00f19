"""Renders the chart with the real helm. Neighbours: test_chart*.py look at what comes out."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from testbed.tools import ensure

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "charts" / "bp-voucher-operator"
RELEASE = "bp-voucher-operator"

Document = dict[str, Any]
Values = Mapping[str, Any]


def helm(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm and return what it said, whether it failed or not."""
    command = [str(ensure("helm") / "helm"), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True)


def template(values: Values | None = None, *, namespace: str = "billing", release: str = RELEASE) -> str:
    """Return the chart's objects with these values, without the CRDs, as YAML.

    Raises AssertionError with helm's words.
    """
    # JSON is YAML that no reader takes for another type.
    return _template(json.dumps(dict(values or {})), namespace, release)


@cache
def _template(values: str, namespace: str, release: str) -> str:
    rendered = helm("template", release, CHART, "-n", namespace, "-f", "-", stdin=values)
    assert rendered.returncode == 0, rendered.stderr
    return rendered.stdout


def render(values: Values | None = None, *, namespace: str = "billing", release: str = RELEASE) -> list[Document]:
    """Return the chart's objects with these values, without the CRDs."""
    text = template(values, namespace=namespace, release=release)
    return [document for document in yaml.safe_load_all(text) if document]


def refusal(values: Values) -> str:
    """Return why helm refuses these values. Raises AssertionError if it does not."""
    rendered = helm("template", RELEASE, CHART, "-f", "-", stdin=json.dumps(dict(values)))
    assert rendered.returncode != 0, "the values are accepted"
    return rendered.stderr


def of_kind(documents: Iterable[Document], kind: str) -> list[Document]:
    """Return the objects of a kind."""
    return [document for document in documents if document["kind"] == kind]


def the(documents: Iterable[Document], kind: str) -> Document:
    """Return the only object of a kind."""
    (document,) = of_kind(documents, kind)
    return document


def container(workload: Document) -> Document:
    """Return the only container of a Deployment or Job."""
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(only)

"""Renders the chart with the real helm. See also: test_chart*.py look at what comes out."""

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
MONITORED = ("--api-versions", "monitoring.coreos.com/v1")
"""A cluster that has the Prometheus operator's kinds."""
EVERYTHING: dict[str, Any] = {
    "watchNamespaces": ["one", "two"],
    "sovereignAdmins": [
        {"kind": "Group", "name": "sovereign-admins"},
        {"kind": "ServiceAccount", "name": "shop", "namespace": "sme"},
    ],
    "externalSecrets": {
        "enabled": True,
        "secretStoreRef": {"name": "vault"},
        "runtimeKey": "billing/runtime",
        "ownerKey": "billing/owner",
    },
    "sovereign": "sovereign.example",
    "catalog": {"url": "http://catalog.sme:8080", "existingConfigMap": "prices"},
    "stripe": {"minimumMinor": 100},
    "checkout": {"successUrl": "https://shop.example/paid", "cancelUrl": "https://shop.example/cart"},
    "nats": {"url": "nats://nats.nats:4222"},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Billing"}},
    },
}
"""Every toggle that is off by default, on."""

Document = dict[str, Any]
Values = Mapping[str, Any]


def helm(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm and return its result, whether it failed or not."""
    command = [str(ensure("helm") / "helm"), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True)


def template(
    values: Values | None = None, *, namespace: str = "billing", release: str = RELEASE, options: tuple[str, ...] = ()
) -> str:
    """Return the chart's objects with these values, without the CRDs, as YAML.

    `options` are helm's, for example API. Raises AssertionError with helm's message.
    """
    # JSON is YAML with unambiguous types.
    return _template(json.dumps(dict(values or {})), namespace, release, options)


@cache
def _template(values: str, namespace: str, release: str, options: tuple[str, ...]) -> str:
    rendered = helm("template", release, CHART, "-n", namespace, "-f", "-", *options, stdin=values)
    assert rendered.returncode == 0, rendered.stderr
    return rendered.stdout


def load_all(text: str) -> list[Document]:
    """Return the documents of a YAML text; by libyaml, which takes a tenth of the time."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def render(
    values: Values | None = None, *, namespace: str = "billing", release: str = RELEASE, options: tuple[str, ...] = ()
) -> list[Document]:
    """Return the chart's objects with these values, without the CRDs."""
    text = template(values, namespace=namespace, release=release, options=options)
    return load_all(text)


def refusal(values: Values) -> str:
    """Return why helm refuses these values. Raises AssertionError if it does not."""
    rendered = helm("template", RELEASE, CHART, "-f", "-", stdin=json.dumps(dict(values)))
    assert rendered.returncode != 0, "the values are accepted"
    return rendered.stderr


def of_kind(documents: Iterable[Document], kind: str) -> list[Document]:
    """Return the release's objects of a kind; hooks are not among them."""
    return [document for document in documents if document["kind"] == kind and not _events(document)]


def the(documents: Iterable[Document], kind: str) -> Document:
    """Return the only object of a kind."""
    (document,) = of_kind(documents, kind)
    return document


def hook(documents: Iterable[Document]) -> Document:
    """Return the only hook."""
    (document,) = [document for document in documents if _events(document)]
    return document


def workload(documents: Iterable[Document], name: str) -> Document:
    """Return one of WORKLOADS."""
    return hook(documents) if name == "hook" else the(documents, name)


WORKLOADS = ("Deployment", "Job", "hook")
"""Everything of the chart that runs."""


def _events(document: Document) -> str:
    return str(document["metadata"].get("annotations", {}).get("helm.sh/hook", ""))


def container(workload: Document) -> Document:
    """Return the only container of a Deployment or Job."""
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(only)

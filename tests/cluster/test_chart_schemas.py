"""kubeconform takes the chart, by the API server's own schemas, as it is checked where there is no cluster."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.control_plane import ControlPlane
from testbed.tools import ensure
from tests.cluster.chart import CHART, EVERYTHING, MONITORED, Document, helm, render, template

# Their schemas are not this cluster's.
FOREIGN = ("ServiceMonitor", "PrometheusRule", "ExternalSecret")


@pytest.fixture(scope="module")
def schemas(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a closed JSON schema of each kind that the chart has."""
    folder = tmp_path_factory.mktemp("schemas")
    for version in {document["apiVersion"] for document in render(EVERYTHING) if document["kind"] not in FOREIGN}:
        path = f"apis/{version}" if "/" in version else f"api/{version}"
        document = json.loads(control_plane.kubectl("get", "--raw", f"/openapi/v3/{path}"))
        _write(folder, document["components"])
    return folder


def _write(folder: Path, components: Document) -> None:
    for name, schema in components["schemas"].items():
        for gvk in schema.get("x-kubernetes-group-version-kind", ()):
            whole = {"$ref": f"#/components/schemas/{name}", "components": _closed(components)}
            # As kubeconform names them: rolebinding-rbac-v1, service-v1.
            parts = filter(None, (gvk["kind"].lower(), gvk["group"].partition(".")[0], gvk["version"]))
            file = f"{'-'.join(parts)}.json"
            (folder / file).write_text(json.dumps(whole))


def _closed(schema: Any) -> Any:
    """Return the schema with every object closed, so that a misspelt field is a fault."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed


def _complaints(schemas: Path, text: str) -> Iterator[str]:
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [str(ensure("kubeconform") / "kubeconform"), "-strict", "-output", "json", "-verbose"]
    options = ["-schema-location", location, "-skip", ",".join(FOREIGN), "-"]
    done = subprocess.run([*command, *options], input=text, capture_output=True, text=True)
    resources = json.loads(done.stdout)["resources"]
    assert resources, done.stderr
    for resource in resources:
        if resource["status"] not in ("statusValid", "statusSkipped"):
            yield f"{resource['kind']}/{resource['name']}: {resource['msg']}"


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_kubeconform_accepts_every_object(schemas: Path, values: Document) -> None:
    """Every object of every kind that is Kubernetes' own."""
    assert list(_complaints(schemas, template(values, options=MONITORED))) == []


def test_kubeconform_reports_faults(schemas: Path) -> None:
    """A misspelt field, a wrong type and a kind that is not there."""
    text = template().replace("maxUnavailable: 1\n", "maxUnavailabel: 1\n").replace("kind: Service\n", "kind: Servce\n")
    found = "\n".join(_complaints(schemas, text.replace("backoffLimit: 1000", "backoffLimit: many")))
    assert all(name in found for name in ("PodDisruptionBudget/", "Servce/", "Job/"))


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_helm_lint_has_no_warnings(tmp_path: Path, values: Document) -> None:
    """helm reports nothing, warnings included."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    done = helm("lint", "--strict", "--values", file, CHART)
    assert done.returncode == 0, done.stdout + done.stderr

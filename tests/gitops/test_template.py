"""The template of a Sovereign's Flux tree: it builds, the API server and the chart take it, and its parts agree."""

import json
import re
from pathlib import Path

import pytest
import yaml

from testbed.cluster import CHART, render_chart
from testbed.control_plane import ControlPlane
from tests.cluster.resources import Object
from tests.gitops.sovereign import TEMPLATE

SLOT = TEMPLATE / "bootstrap-kit" / "49-voucher-operator.yaml"
FILES = sorted(path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if path.is_file())
REGISTRY = "${BLUEPRINT_REGISTRY:=harbor.${SOVEREIGN_FQDN}}"


def substituted(text: str) -> str:
    """Do what postBuild does; that Flux agrees is tested where Flux runs."""
    return text.replace(REGISTRY, "harbor.sovereign.example").replace("${SOVEREIGN_FQDN}", "sovereign.example")


def slot() -> dict[str, Object]:
    documents = yaml.safe_load_all(substituted(SLOT.read_text()))
    return {document["kind"]: document for document in documents}


def kustomization(name: str) -> Object:
    return dict(yaml.safe_load((TEMPLATE / "flux-system" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_an_object_or_a_list_of_them(path: Path) -> None:
    assert path.suffix == ".yaml"
    documents = list(yaml.safe_load_all((TEMPLATE / path).read_text()))
    assert documents
    assert all(document.keys() >= {"apiVersion", "kind"} for document in documents)


def test_every_file_is_reached() -> None:
    """From the root, by kustomize's lists and the paths of Flux."""
    reached: set[Path] = set()
    for folder in (".", "bootstrap-kit", "vouchers"):
        reached |= _listed(Path(folder))
    assert set(FILES) == reached
    for name in ("bootstrap-kit", "vouchers"):
        assert kustomization(name)["spec"]["path"] == f"./clusters/_template/{name}"


def _listed(folder: Path) -> set[Path]:
    index = folder / "kustomization.yaml"
    found = {index}
    for name in yaml.safe_load((TEMPLATE / index).read_text())["resources"]:
        found |= _listed(folder / name) if (TEMPLATE / folder / name).is_dir() else {folder / name}
    return found


@pytest.mark.usefixtures("flux")
@pytest.mark.parametrize(
    ("folder", "kinds"),
    [
        (".", ["Kustomization", "Kustomization"]),
        ("bootstrap-kit", ["HelmRelease", "HelmRepository", "Namespace"]),
        ("vouchers", ["Voucher", "Voucher"]),
    ],
)
def test_api_server_takes_what_kustomize_builds(
    control_plane: ControlPlane, namespace: str, folder: str, kinds: list[str]
) -> None:
    """Strictly: with Flux's own definitions, an unknown or misplaced field would be refused."""
    built = substituted(control_plane.kubectl("kustomize", str(TEMPLATE / folder)))
    documents = list(yaml.safe_load_all(built))
    assert sorted(document["kind"] for document in documents) == kinds
    for document in documents:
        # Theirs need not exist here.
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = namespace
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
    taken = control_plane.kubectl(*arguments, input="\n---\n".join(map(json.dumps, documents)))
    assert len(taken.splitlines()) == len(documents)


def test_variables_of_the_kit_are_set_or_have_a_default() -> None:
    """Flux fails all of the kit for one that is not; elsewhere nothing is substituted."""
    known = set(kustomization("bootstrap-kit")["spec"]["postBuild"]["substitute"])
    values = json.dumps(list(yaml.safe_load_all(SLOT.read_text())))
    used = re.findall(r"(?<!\$)\$\{(\w+)(:=)?", values)
    assert {name for name, default in used if not default} == known == {"SOVEREIGN_FQDN"}
    assert "postBuild" not in kustomization("vouchers")["spec"]
    for path in FILES:
        if path.parts[0] != "bootstrap-kit":
            values = json.dumps(list(yaml.safe_load_all((TEMPLATE / path).read_text())))
            assert "${" not in values, path


def test_slot_is_as_the_platform_wants_it() -> None:
    release = slot()["HelmRelease"]["spec"]
    assert release["interval"] == "15m"
    assert [one["name"] for one in release["dependsOn"]] == [
        "bp-catalyst-platform",
        "bp-cnpg",
        "bp-external-secrets",
        "bp-nats-jetstream",
    ]
    for action in ("install", "upgrade"):
        assert release[action] == {"crds": "CreateReplace", "disableWait": True, "remediation": {"retries": 3}}
    source = slot()["HelmRepository"]
    assert (source["spec"]["type"], source["spec"]["secretRef"]) == ("oci", {"name": "ghcr-pull"})
    assert release["chart"]["spec"]["sourceRef"]["name"] == source["metadata"]["name"]
    assert slot()["Namespace"]["metadata"]["labels"] == {"catalyst.openova.io/sovereign": "sovereign.example"}


def test_slot_installs_this_chart_where_the_vouchers_are() -> None:
    release = slot()["HelmRelease"]["spec"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert release["chart"]["spec"]["chart"] == chart["name"]
    assert release["chart"]["spec"]["version"] == chart["version"]
    namespace = slot()["Namespace"]["metadata"]["name"]
    assert release["targetNamespace"] == namespace == kustomization("vouchers")["spec"]["targetNamespace"]


def test_chart_takes_the_slots_values() -> None:
    documents = render_chart("billing", slot()["HelmRelease"]["spec"]["values"])
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("harbor.sovereign.example/openova-io/voucher-operator:")


def test_vouchers_are_a_kustomization_of_their_own() -> None:
    spec = kustomization("vouchers")["spec"]
    assert (spec["wait"], spec["prune"]) == (True, True)
    assert spec["dependsOn"] == [{"name": kustomization("bootstrap-kit")["metadata"]["name"]}]
    # Least that Flux takes.
    assert int(spec["timeout"].removesuffix("m")) >= 1

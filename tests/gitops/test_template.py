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


def substituted(text: str) -> str:
    """Do what postBuild does; that Flux agrees is tested where Flux runs."""
    text = text.replace("${SOVEREIGN_FQDN}", "sovereign.example")
    return re.sub(r"\$\{\w+:=([^${}]*)\}", r"\1", text)


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
def test_api_server_accepts_the_kustomize_output(
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


def test_slot_follows_the_platform_rules() -> None:
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


def test_removing_the_slot_keeps_the_namespace() -> None:
    """And with it every Voucher and Redemption; the operator alone goes."""
    assert kustomization("bootstrap-kit")["spec"]["prune"] is True
    annotations = slot()["Namespace"]["metadata"]["annotations"]
    assert annotations == {"kustomize.toolkit.fluxcd.io/prune": "disabled"}


def test_slot_installs_this_chart_in_the_vouchers_namespace() -> None:
    release = slot()["HelmRelease"]["spec"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert release["chart"]["spec"]["chart"] == chart["name"]
    assert release["chart"]["spec"]["version"] == chart["version"]
    namespace = slot()["Namespace"]["metadata"]["name"]
    assert release["targetNamespace"] == namespace == kustomization("vouchers")["spec"]["targetNamespace"]


@pytest.fixture(scope="module")
def rendered() -> dict[str, Object]:
    """What the slot installs: pods (there is one Deployment and one Job), and the rest by kind and name."""
    documents = render_chart("billing", slot()["HelmRelease"]["spec"]["values"])
    pods = {one["kind"]: one["spec"]["template"]["spec"] for one in documents if one["kind"] in ("Deployment", "Job")}
    return pods | {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_chart_accepts_the_slot_values(rendered: dict[str, Object], kind: str) -> None:
    pod = rendered[kind]
    (container,) = pod["containers"]
    assert container["image"].startswith("harbor.sovereign.example/openova-io/voucher-operator:")
    assert pod["imagePullSecrets"] == [{"name": "ghcr-pull"}]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    where = (variables["PGHOST"], variables["PGDATABASE"])
    assert where == ("sme-pg-rw.sme.svc.cluster.local", "sme_billing")


@pytest.mark.parametrize(("kind", "key"), [("Deployment", "voucher-operator"), ("Job", "owner")])
def test_slot_creates_the_secrets_that_its_pods_mount(rendered: dict[str, Object], kind: str, key: str) -> None:
    """The release's own namespace has no other."""
    mounted = next(one["secret"]["secretName"] for one in rendered[kind]["volumes"] if "secret" in one)
    brought = rendered[f"ExternalSecret/{mounted}"]
    assert brought["metadata"]["namespace"] == slot()["HelmRelease"]["spec"]["targetNamespace"]
    assert brought["spec"]["target"]["name"] == mounted
    assert brought["spec"]["dataFrom"] == [{"extract": {"key": f"sovereign/sovereign.example/billing/{key}"}}]
    assert brought["spec"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "vault-region1"}


def test_slot_has_no_helm_hook(rendered: dict[str, Object]) -> None:
    """A hook whose image cannot be pulled yet fails the release, and after three retries nobody tries again."""
    kept = [one["metadata"].get("annotations", {}) for name, one in rendered.items() if "/" in name]
    assert not any(key.startswith("helm.sh/hook") for annotations in kept for key in annotations)


def test_vouchers_have_their_own_kustomization() -> None:
    spec = kustomization("vouchers")["spec"]
    assert (spec["wait"], spec["prune"]) == (True, True)
    assert spec["dependsOn"] == [{"name": kustomization("bootstrap-kit")["metadata"]["name"]}]
    # Least that Flux takes.
    assert int(spec["timeout"].removesuffix("m")) >= 1

"""The bootstrap kit under Flux: variables are filled in, and vouchers wait for it.

No helm-controller runs here; the test says in its place that the release is installed.
"""

import json
from collections.abc import Iterator

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.resources import Object, condition
from tests.gitops.sovereign import Sovereign, applied, checking, template_files


@pytest.fixture
def flux_system(control_plane: ControlPlane) -> Iterator[str]:
    """The namespace of the kit's own objects. Asked for before the Sovereign: what Flux leaves is removed after it."""
    control_plane.namespace("flux-system")
    yield "flux-system"
    control_plane.kubectl("delete", "namespace", "flux-system", "billing", "--ignore-not-found")


def _read(control_plane: ControlPlane, *what: str) -> Object:
    return dict(json.loads(control_plane.kubectl("get", *what, "--output=json")))


def _installed(control_plane: ControlPlane, namespace: str) -> None:
    """Write the status that Helm's controllers write after a successful installation; an OCI repository has none."""
    now = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
    installed = {"type": "Ready", "status": "True", "reason": "InstallSucceeded", "message": "Helm install succeeded"}
    for kind, status in (
        ("helmrelease", {"observedGeneration": 1, "conditions": [installed | now]}),
        ("helmrepository", {"observedGeneration": None}),
    ):
        where = (kind, "bp-voucher-operator", f"--namespace={namespace}", "--subresource=status", "--type=merge")
        control_plane.kubectl("patch", *where, f"--patch={json.dumps({'status': status})}")


def test_vouchers_wait_for_the_bootstrap_kit(
    flux_system: str, sovereign: Sovereign, control_plane: ControlPlane
) -> None:
    revision = sovereign.source.commit(template_files())
    sovereign.follow("bootstrap-kit", targetNamespace=None)
    sovereign.follow("vouchers", dependsOn=[{"name": "bootstrap-kit"}])
    sovereign.wait(checking(revision), "bootstrap-kit")
    sovereign.wait(lambda body: condition(body, "Ready").get("reason") == "DependencyNotReady")
    release = _read(control_plane, "helmrelease", "bp-voucher-operator", "--namespace=flux-system")
    assert release["spec"]["values"]["image"]["registry"] == "harbor.sovereign.example"
    source = _read(control_plane, "helmrepository", "bp-voucher-operator", "--namespace=flux-system")
    assert source["spec"]["url"] == "oci://harbor.sovereign.example/openova-io"
    labels = _read(control_plane, "namespace", "billing")["metadata"]["labels"]
    assert labels["catalyst.openova.io/sovereign"] == "sovereign.example"
    _installed(control_plane, flux_system)
    sovereign.wait(applied(revision), "bootstrap-kit")
    sovereign.wait(applied(revision))
    assert sovereign.ledger.promo("OMANTEL-MUSCAT-200") == (200_000, True, 50, 0, False)


def test_registry_variable_changes_the_chart_source(
    flux_system: str, sovereign: Sovereign, control_plane: ControlPlane
) -> None:
    revision = sovereign.source.commit(template_files())
    variables = {"SOVEREIGN_FQDN": "sovereign.example", "BLUEPRINT_REGISTRY": "mirror.example:5000"}
    sovereign.follow("bootstrap-kit", targetNamespace=None, wait=False, postBuild={"substitute": variables})
    sovereign.wait(applied(revision), "bootstrap-kit")
    source = _read(control_plane, "helmrepository", "bp-voucher-operator", f"--namespace={flux_system}")
    assert source["spec"]["url"] == "oci://mirror.example:5000/openova-io"


def test_unset_variable_fails_the_bootstrap_kit(sovereign: Sovereign) -> None:
    sovereign.source.commit(template_files())
    sovereign.follow("bootstrap-kit", targetNamespace=None, postBuild={"substitute": {"OTHER": "x"}})
    body = sovereign.wait(lambda body: condition(body, "Ready").get("reason") == "BuildFailed", "bootstrap-kit")
    assert "variable not set" in condition(body, "Ready")["message"]

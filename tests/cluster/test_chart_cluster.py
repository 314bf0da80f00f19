"""A real API server takes the chart: schemas, Pod Security, installation, upgrade and removal by helm."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.chart import CHART, EVERYTHING, WORKLOADS, Document, helm, render, template, workload

VALUES: list[Document] = [
    {},
    {
        "imagePullSecrets": [{"name": "ghcr-pull"}],
        "priorityClassName": "system-cluster-critical",
        "database": {
            "existingSecret": "123",
            "ownerSecret": "0x1f",
            "host": "pg-rw.sme",
            "port": 5433,
            "name": "sme_billing",
            "caSecret": {"name": "7e1"},
        },
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "billing", "operator": "Exists", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2}
        ],
        "extraEnv": [{"name": "PGCONNECT_TIMEOUT", "value": "5"}],
        "fullnameOverride": "vouchers",
        # Names that YAML would take for numbers.
        "lease": {"name": "1e3"},
        "serviceAccount": {"name": "7"},
        "podLabels": {"cost-centre": "0815"},
        "sovereignAdmins": EVERYTHING["sovereignAdmins"],
        "networkPolicy": {
            "ingressFrom": [],
            "apiServer": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
            "database": {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"cnpg.io/cluster": "pg"}}}]},
            "extraEgress": [{"ports": [{"port": 3128}]}],
        },
    },
]


@pytest.fixture(scope="module")
def restricted(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace that lets only pods of the restricted profile in."""
    name = control_plane.namespace(f"chart-restricted-{secrets.token_hex(4)}")
    control_plane.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def _dry_run(control_plane: ControlPlane, text: str, *, check: bool = True) -> str:
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    return control_plane.kubectl(*arguments, input=text, check=check)


@pytest.mark.parametrize("values", VALUES, ids=["default", "many options"])
def test_api_server_accepts_every_object(control_plane: ControlPlane, restricted: str, values: Document) -> None:
    """Strictly: an unknown or misplaced field would be refused."""
    text = template(values, namespace=restricted)
    assert len(_dry_run(control_plane, text).splitlines()) == len(render(values, namespace=restricted))


def test_api_server_accepts_the_crds(control_plane: ControlPlane) -> None:
    """As they come out of the chart."""
    shown = helm("show", "crds", CHART)
    assert shown.returncode == 0, shown.stderr
    assert len(_dry_run(control_plane, shown.stdout).splitlines()) == 2


def _pod(workload: Document, namespace: str) -> Document:
    metadata = {"name": "probe", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": workload["spec"]["template"]["spec"]}


@pytest.mark.parametrize("kind", WORKLOADS)
def test_pods_are_admitted_where_pod_security_is_restricted(
    control_plane: ControlPlane, restricted: str, kind: str
) -> None:
    """The pods, not only their owners, which are never refused."""
    pod = _pod(workload(render(namespace=restricted), kind), restricted)
    assert "pod/probe serverside-applied" in _dry_run(control_plane, json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "violates PodSecurity" in _dry_run(control_plane, json.dumps(pod), check=False)


class Release:
    """The chart, installed by helm in a namespace of its own."""

    def __init__(self, control_plane: ControlPlane) -> None:
        suffix = secrets.token_hex(4)
        self._control_plane = control_plane
        self.name = f"release-{suffix}"
        self.namespace = control_plane.namespace(f"chart-{self.name}")

    def helm(self, verb: str, *arguments: str | Path, check: bool = True) -> str:
        """Run helm on the release and return its standard error; with `check` it must succeed."""
        place = ("-n", self.namespace, "--kubeconfig", self._control_plane.kubeconfig)
        done = helm(verb, self.name, *arguments, *place)
        assert done.returncode == 0 or not check, done.stderr
        return done.stderr if done.returncode else ""

    def names(self, kind: str) -> list[str]:
        """Return the objects of a kind that came with the release."""
        selector = f"app.kubernetes.io/instance={self.name}"
        listed = self._control_plane.kubectl("get", kind, "-n", self.namespace, "-l", selector, "-o", "name")
        return sorted(name.partition("/")[2] for name in listed.split())


# CRDs belong to the whole cluster and are left alone. No kubelet runs here, so a hook's pod would never end; tests/e2e
# has the hook.
CHART_OPTIONS = (CHART, "--skip-crds", "--set", "migration.mode=job")


@pytest.fixture
def release(control_plane: ControlPlane) -> Iterator[Release]:
    """An installed release."""
    installed = Release(control_plane)
    installed.helm("install", *CHART_OPTIONS)
    yield installed
    installed.helm("uninstall", "--ignore-not-found")
    control_plane.kubectl("delete", "namespace", installed.namespace, "--wait=false")


def test_upgrade_replaces_the_migration(control_plane: ControlPlane, release: Release) -> None:
    """An upgrade that changes the Job makes a new one; one that finds it gone (by its TTL) makes it again."""
    (first,) = release.names("job")
    release.helm("upgrade", *CHART_OPTIONS, "--set", "image.tag=0.2.0")
    (second,) = release.names("job")
    assert second != first
    control_plane.kubectl("delete", "job", second, "-n", release.namespace, "--cascade=orphan")
    release.helm("upgrade", *CHART_OPTIONS, "--set", "image.tag=0.2.0", "--set", "replicas=3")
    assert release.names("job") == [second]


def test_uninstall_removes_every_object(release: Release) -> None:
    """Everything carries the release's label, so that this sees what stays."""
    kinds = (
        "deployment,job,service,serviceaccount,role,rolebinding,clusterrole,poddisruptionbudget,networkpolicy,"
        "configmap,clusterrolebinding"
    )
    assert len(release.names(kinds)) == 20
    release.helm("uninstall")
    assert release.names(kinds) == []


def test_second_release_for_a_namespace_is_refused(control_plane: ControlPlane, release: Release) -> None:
    """A second release that would serve the same is refused by helm with a message; one that serves another is not."""
    second = Release(control_plane)
    other = ("--set", f"watchNamespaces={{{second.namespace}}}")
    both = ("--set", f"watchNamespaces={{{second.namespace},{release.namespace}}}")
    said = second.helm("install", *CHART_OPTIONS, *both, check=False)
    wanted = f"{release.namespace} is already served by the release {release.name} in namespace {release.namespace}"
    assert wanted in said
    second.helm("install", *CHART_OPTIONS, *other)
    assert wanted in second.helm("upgrade", *CHART_OPTIONS, *both, check=False)
    # Its own Roles are no obstacle to itself.
    second.helm("upgrade", *CHART_OPTIONS, *other, "--set", "replicas=3")
    second.helm("uninstall")
    control_plane.kubectl("delete", "namespace", second.namespace, "--wait=false")

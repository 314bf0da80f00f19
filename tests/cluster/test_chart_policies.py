"""The chart obeys the platform's admission policies; each policy is a function that names what breaks it."""

import copy
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest

from tests.cluster.chart import EVERYTHING, MONITORED, Document, of_kind, render, the

LABELS = {
    f"app.kubernetes.io/{key}" for key in ("name", "instance", "version", "component", "part-of", "managed-by")
} | {
    "helm.sh/chart",
    "catalyst.openova.io/blueprint",
}
WORKLOADS = ("Deployment", "Job")
SELECTORS = {
    "Deployment": "selector",
    "Service": "selector",
    "PodDisruptionBudget": "selector",
    "ServiceMonitor": "selector",
    "NetworkPolicy": "podSelector",
}
TOKEN = "sa-token.openova.io/required"

Policy = Callable[[Document], Iterator[str]]


def labels(document: Document) -> Iterator[str]:
    """All labels on every object and pod; selectors of name and instance alone."""
    bodies = [document] + ([document["spec"]["template"]] if document["kind"] in WORKLOADS else [])
    for body in bodies:
        if missing := LABELS - set(body["metadata"].get("labels", {})):
            yield f"labels are missing: {sorted(missing)}"
    selector = document["spec"].get(SELECTORS[document["kind"]], {}) if document["kind"] in SELECTORS else {}
    if selector and set(selector.get("matchLabels", selector)) != {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
    }:
        yield "a selector is not of name and instance"


def pod_security(document: Document) -> Iterator[str]:
    """Non-root with uid >= 1000, seccomp RuntimeDefault, nothing of the host."""
    for pod in _pods(document):
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) < 1000:
            yield "the pod may run as root or as a system user"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "seccomp is not RuntimeDefault"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield "the pod shares the host's namespaces"


def container_security(document: Document) -> Iterator[str]:
    """No escalation, no capability, read-only root, no other user than the pod's."""
    for container in _containers(document):
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
            yield "privileges may be gained"
        if security.get("capabilities") != {"drop": ["ALL"]}:
            yield "capabilities are kept"
        if security.get("readOnlyRootFilesystem") is not True:
            yield "the root file system can be written"
        if security.get("runAsUser", 1000) < 1000 or security.get("runAsNonRoot", True) is not True:
            yield "the container may run as root or as a system user"


def resources(document: Document) -> Iterator[str]:
    """Requests and a memory limit."""
    for container in _containers(document):
        given = container.get("resources", {})
        if not {"cpu", "memory"} <= set(given.get("requests", {})):
            yield "a request is missing"
        if "memory" not in given.get("limits", {}):
            yield "the memory limit is missing"


def probes(document: Document) -> Iterator[str]:
    """Liveness and readiness probes of every Deployment."""
    for container in _containers(document) if document["kind"] == "Deployment" else ():
        yield from (f"{probe} is missing" for probe in ("livenessProbe", "readinessProbe") if not container.get(probe))


def images(document: Document) -> Iterator[str]:
    """A tag other than latest, or a digest."""
    for container in _containers(document):
        if not re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]):
            yield f"the image is not pinned: {container['image']}"


def rbac(document: Document) -> Iterator[str]:
    """Bound in namespaces alone, but for those on Vouchers and on Organizations, and without wildcards."""
    wide = ("-vouchers", "-orgs")
    if document["kind"] == "ClusterRoleBinding" and not document["metadata"]["name"].endswith(wide):
        yield "rights over the whole cluster"
    for rule in document.get("rules", ()):
        if any("*" in entry for entry in chain(*rule.values())):
            yield f"a wildcard: {rule}"


def tokens(document: Document) -> Iterator[str]:
    """Automount is stated; true needs the annotation."""
    if document["kind"] == "ServiceAccount":
        yield from _token(document.get("automountServiceAccountToken"), document["metadata"])
    if document["kind"] in WORKLOADS:
        pod = document["spec"]["template"]
        yield from _token(pod["spec"].get("automountServiceAccountToken"), pod["metadata"])


def volumes(document: Document) -> Iterator[str]:
    """Every emptyDir has a limit."""
    for pod in _pods(document):
        for volume in pod.get("volumes", ()):
            if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
                yield f"an emptyDir without sizeLimit: {volume['name']}"


def replicas(document: Document) -> Iterator[str]:
    """Two replicas of every Deployment."""
    if document["kind"] == "Deployment" and document["spec"].get("replicas", 1) < 2:
        yield "fewer than two replicas"


POLICIES: tuple[Policy, ...] = (
    labels,
    pod_security,
    container_security,
    resources,
    probes,
    images,
    rbac,
    tokens,
    volumes,
    replicas,
)


def _token(automount: object, metadata: Document) -> Iterator[str]:
    if not isinstance(automount, bool):
        yield "automountServiceAccountToken is not stated"
    elif automount and metadata.get("annotations", {}).get(TOKEN) != "true":
        yield f"a token without the annotation {TOKEN}"


def _pods(document: Document) -> Iterator[Document]:
    if document["kind"] in WORKLOADS:
        yield document["spec"]["template"]["spec"]


def _containers(document: Document) -> Iterator[Document]:
    for pod in _pods(document):
        yield from chain(pod["containers"], pod.get("initContainers", ()))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "watchNamespaces": ["one", "two"],
            "podLabels": {"app.kubernetes.io/name": "x"},
            "podAnnotations": {TOKEN: "false"},
        },
        {"image": {"registry": "harbor.example.com:8443/mirror", "digest": "sha256:" + "a" * 64}},
        EVERYTHING,
        {
            "migration": {"mode": "job"},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
            "clusterRoles": {"aggregate": False},
        },
        {"migration": {"enabled": False}, "clusterRoles": {"create": False}, "rbac": {"create": False}},
        {"serviceAccount": {"create": False, "name": "theirs"}},
    ],
    ids=["default", "pods", "digest", "everything", "less", "least", "accounts"],
)
def test_chart_satisfies_the_policy(policy: Policy, values: Document) -> None:
    """No object of the chart breaks the policy, hooks included, whatever is toggled."""
    documents = render(values, options=MONITORED)
    violations = {f"{d['kind']}/{d['metadata']['name']}": list(policy(d)) for d in documents}
    assert {name: found for name, found in violations.items() if found} == {}


def _drop(*path: str | int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del _at(document, path[:-1])[path[-1]]

    return change


def _set(value: Any, *path: str | int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        _at(document, path[:-1])[path[-1]] = value

    return change


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)


@pytest.mark.parametrize(
    ("policy", "kind", "change"),
    [
        (labels, "Service", _drop("metadata", "labels", "helm.sh/chart")),
        (labels, "Job", _drop("spec", "template", "metadata", "labels", "app.kubernetes.io/component")),
        (labels, "Deployment", _set("1", "spec", "selector", "matchLabels", "app.kubernetes.io/version")),
        (labels, "Service", _drop("spec", "selector", "app.kubernetes.io/instance")),
        (labels, "PodDisruptionBudget", _drop("spec", "selector", "matchLabels", "app.kubernetes.io/name")),
        (pod_security, "Deployment", _set(999, *POD, "securityContext", "runAsUser")),
        (pod_security, "Job", _drop(*POD, "securityContext", "seccompProfile")),
        (pod_security, "Job", _set(True, *POD, "hostNetwork")),
        (container_security, "Deployment", _drop(*CONTAINER, "securityContext", "allowPrivilegeEscalation")),
        (container_security, "Deployment", _set(["NET_RAW"], *CONTAINER, "securityContext", "capabilities", "add")),
        (container_security, "Job", _set(False, *CONTAINER, "securityContext", "readOnlyRootFilesystem")),
        (container_security, "Job", _set(0, *CONTAINER, "securityContext", "runAsUser")),
        (resources, "Job", _drop(*CONTAINER, "resources", "requests", "cpu")),
        (resources, "Deployment", _drop(*CONTAINER, "resources", "limits", "memory")),
        (probes, "Deployment", _drop(*CONTAINER, "readinessProbe")),
        (images, "Deployment", _set("registry:5000/voucher-operator", *CONTAINER, "image")),
        (images, "Job", _set("voucher-operator:latest", *CONTAINER, "image")),
        (tokens, "Deployment", _drop(*POD, "automountServiceAccountToken")),
        (tokens, "Deployment", _drop("spec", "template", "metadata", "annotations", TOKEN)),
        (volumes, "Deployment", _set({}, *POD, "volumes", 1, "emptyDir")),
        (replicas, "Deployment", _set(1, "spec", "replicas")),
    ],
)
def test_policy_reports_a_breach(policy: Policy, kind: str, change: Callable[[Document], None]) -> None:
    """Each policy reports the fault that is put into the chart's own object."""
    document = copy.deepcopy(the(render(), kind))
    change(document)
    assert list(policy(document))


def test_rbac_policy_reports_wildcards_and_cluster_roles() -> None:
    """As above, for the kinds that the chart has several of or none."""
    role = of_kind(render(), "Role")[0]
    role["rules"][0]["verbs"] = ["*"]
    assert list(rbac(role))
    assert list(rbac({"kind": "ClusterRoleBinding", "metadata": {"name": "all"}}))

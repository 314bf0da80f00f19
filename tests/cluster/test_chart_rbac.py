"""The operator's rights, exactly: as the chart writes them and as a real API server reads them."""

import json
import secrets
from collections.abc import Iterable
from itertools import product

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.chart import Document, of_kind, render, template

Right = tuple[str, str, str, str]
"""API group, resource, name ("" for all), verb."""

BILLING = "billing.openova.io"
VOUCHERS: set[Right] = {
    *((BILLING, "vouchers", "", verb) for verb in ("get", "list", "watch", "patch")),
    (BILLING, "vouchers/status", "", "patch"),
}
"""In the whole cluster: a namespace that is deleted loses its Roles before its Vouchers."""
SERVED: set[Right] = {
    *((BILLING, "redemptions", "", verb) for verb in ("get", "list", "watch", "delete")),
    (BILLING, "redemptions/status", "", "patch"),
    ("", "secrets", "", "get"),
    *(("events.k8s.io", "events", "", verb) for verb in ("create", "patch")),
}


def _lease(name: str) -> set[Right]:
    group = "coordination.k8s.io"
    return {(group, "leases", "", "create"), (group, "leases", name, "get"), (group, "leases", name, "update")}


def _rights(rules: Iterable[Document]) -> set[Right]:
    parts = ((r["apiGroups"], r["resources"], r.get("resourceNames") or [""], r["verbs"]) for r in rules)
    return {right for part in parts for right in product(*part)}


def _by_namespace(documents: list[Document]) -> dict[str, set[Right]]:
    """Return what the chart's bindings give in each namespace, Role by Role."""
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]): role for role in of_kind(documents, "Role")}
    given: dict[str, set[Right]] = {}
    for binding in of_kind(documents, "RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        role = roles.pop((namespace, binding["roleRef"]["name"]))
        given[namespace] = given.get(namespace, set()) | _rights(role["rules"])
    assert roles == {}, "a Role that nobody has"
    return given


def test_release_namespace_by_default() -> None:
    """What is served and the Lease, in one namespace."""
    assert _by_namespace(render()) == {"billing": SERVED | _lease("bp-voucher-operator")}


def test_watched_namespaces() -> None:
    """The release's own gets the Lease alone, unless it is watched, too."""
    served = {"one": SERVED, "2": SERVED, "ops": _lease("mine")}
    values = {"watchNamespaces": ["one", "2"], "lease": {"name": "mine"}}
    assert _by_namespace(render(values, namespace="ops")) == served
    values["watchNamespaces"] = ["ops"]
    assert _by_namespace(render(values, namespace="ops")) == {"ops": SERVED | _lease("mine")}


@pytest.mark.parametrize("create", [True, False])
def test_nothing_but_vouchers_for_the_whole_cluster(create: bool) -> None:
    """One ClusterRole that outlives a namespace, and no Role at all where somebody else makes them."""
    documents = render({"rbac": {"create": create}})
    kinds = {document["kind"] for document in documents}
    assert [_rights(role["rules"]) for role in of_kind(documents, "ClusterRole")] == [VOUCHERS] * create
    assert len(of_kind(documents, "ClusterRoleBinding")) == create
    assert ({"Role", "RoleBinding"} <= kinds) == create
    assert create or not {"Role", "RoleBinding"} & kinds


def _reviewed(control_plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    """Return what the API server lets an account do in a namespace beyond what it lets everybody do."""

    def rules(user: str) -> set[Right]:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        # Not validated by kubectl: it would first list CRDs, as that user.
        arguments = ("create", "--validate=false", "-f", "-", "-o", "json", "--as", user)
        answer = control_plane.kubectl(*arguments, input=json.dumps(review))
        return _rights(json.loads(answer)["status"]["resourceRules"])

    return rules(f"system:serviceaccount:{account}") - rules(f"system:serviceaccount:{namespace}:nobody")


@pytest.fixture
def three_namespaces(control_plane: ControlPlane) -> list[str]:
    """Namespaces of this test's own: of the release, watched, and another."""
    suffix = secrets.token_hex(4)
    return [control_plane.namespace(f"chart-{name}-{suffix}") for name in ("release", "watched", "other")]


def test_api_server_agrees(control_plane: ControlPlane, three_namespaces: list[str]) -> None:
    """A real API server gives the account these rights, there, and nothing anywhere else; the migration has none."""
    release, watched, other = three_namespaces
    chart = template({"watchNamespaces": [watched]}, namespace=release)
    control_plane.kubectl("apply", "-f", "-", input=chart)
    account = f"{release}:bp-voucher-operator"
    assert _reviewed(control_plane, account, watched) == SERVED | VOUCHERS
    assert _reviewed(control_plane, account, release) == _lease("bp-voucher-operator") | VOUCHERS
    assert _reviewed(control_plane, account, other) == VOUCHERS
    assert _reviewed(control_plane, f"{release}:bp-voucher-operator-migration", watched) == set()
    assert _reviewed(control_plane, f"{release}:bp-voucher-operator-migration", release) == set()

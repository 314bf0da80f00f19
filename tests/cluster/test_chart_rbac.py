"""The operator's rights, exactly: as the chart writes them and as a real API server reads them."""

import json
import secrets
from collections.abc import Iterable
from itertools import product

import pytest

from testbed.control_plane import ControlPlane
from testbed.processes import wait_until
from tests.cluster.chart import EVERYTHING, Document, of_kind, render, template

Right = tuple[str, str, str, str]
"""API group, resource, name ("" for all), verb."""

BILLING = "billing.openova.io"
CRDS = "customresourcedefinitions"
VOUCHERS: set[Right] = {
    *((BILLING, "vouchers", "", verb) for verb in ("get", "list", "watch", "patch")),
    (BILLING, "vouchers/status", "", "patch"),
    *(("apiextensions.k8s.io", CRDS, f"{plural}.{BILLING}", "get") for plural in ("vouchers", "redemptions")),
}
"""In the whole cluster: a namespace that is deleted loses its Roles before its Vouchers."""
ORGANIZATIONS: set[Right] = {("catalyst.openova.io", "organizations", "", verb) for verb in ("get", "create")}
"""Where the platform keeps them: in the whole cluster, in the served namespaces, or nowhere."""
WIDE = VOUCHERS | ORGANIZATIONS
SERVED: set[Right] = {
    *((BILLING, "redemptions", "", verb) for verb in ("get", "list", "watch", "delete")),
    (BILLING, "redemptions/status", "", "patch"),
    ("", "secrets", "", "get"),
    *(("events.k8s.io", "events", "", verb) for verb in ("create", "patch")),
}


ISSUE = {(BILLING, "vouchers", "", verb) for verb in ("get", "list", "watch", "create", "update", "patch", "delete")}
SEE = {(BILLING, kind, "", verb) for kind in ("vouchers", "redemptions") for verb in ("get", "list", "watch")}
EVENTS = {(group, "events", "", verb) for group in ("", "events.k8s.io") for verb in ("get", "list", "watch")}
SOVEREIGN_ADMIN = ISSUE | SEE | EVENTS
CHANGE = ("update", "patch", "delete", "deletecollection")
WRITE = {
    *((BILLING, "vouchers", "", verb) for verb in ("create", *CHANGE)),
    *((BILLING, "redemptions", "", verb) for verb in CHANGE),
}
REDEEM = {
    (BILLING, "redemptions", "", verb) for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
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
        assert binding["roleRef"]["kind"] == "Role"
        role = roles.pop((namespace, binding["roleRef"]["name"]))
        given[namespace] = given.get(namespace, set()) | _rights(role["rules"])
    assert roles == {}, "a Role that nobody has"
    return given


def test_release_namespace_is_served_by_default() -> None:
    """What is served and the Lease, in one namespace."""
    assert _by_namespace(render()) == {"billing": SERVED | _lease("bp-voucher-operator")}


def test_watched_namespaces_get_roles_and_the_release_gets_the_lease() -> None:
    """The release's own gets the Lease alone, unless it is watched, too."""
    served = {"one": SERVED, "2": SERVED, "ops": _lease("mine")}
    values = {"watchNamespaces": ["one", "2"], "lease": {"name": "mine"}}
    assert _by_namespace(render(values, namespace="ops")) == served
    values["watchNamespaces"] = ["ops"]
    assert _by_namespace(render(values, namespace="ops")) == {"ops": SERVED | _lease("mine")}


@pytest.mark.parametrize(
    ("create", "scope", "given"),
    [
        (True, "Cluster", [ORGANIZATIONS, VOUCHERS]),
        (True, "Namespaced", [VOUCHERS]),
        (True, "None", [VOUCHERS]),
        (False, "Cluster", []),
        (False, "Namespaced", []),
    ],
)
def test_cluster_wide_bindings_follow_the_values(create: bool, scope: str, given: list[set[Right]]) -> None:
    """Vouchers, which outlive a namespace's Roles; Organizations, unless disabled; or nothing at all."""
    documents = render({"rbac": {"create": create}, "organizations": {"scope": scope}})
    kinds = {document["kind"] for document in documents}
    rules = {role["metadata"]["name"]: role["rules"] for role in of_kind(documents, "ClusterRole")}
    bound = [binding["roleRef"]["name"] for binding in of_kind(documents, "ClusterRoleBinding")]
    assert [_rights(rules[name]) for name in sorted(bound)] == given
    assert ({"Role", "RoleBinding"} <= kinds) == create
    assert create or not {"Role", "RoleBinding"} & kinds


def test_namespaced_organizations_need_no_cluster_role() -> None:
    """Where their kind is namespaced, no right of the whole cluster is needed."""
    values = {"watchNamespaces": ["one"], "organizations": {"scope": "Namespaced"}}
    served = {"one": SERVED | ORGANIZATIONS, "ops": _lease("bp-voucher-operator")}
    assert _by_namespace(render(values, namespace="ops")) == served


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


def test_api_server_grants_exactly_the_operator_rights(
    control_plane: ControlPlane, three_namespaces: list[str]
) -> None:
    """A real API server gives the account these rights, there, and nothing anywhere else; the migration has none."""
    release, watched, other = three_namespaces
    chart = template({"watchNamespaces": [watched]}, namespace=release)
    control_plane.kubectl("apply", "-f", "-", input=chart)
    account = f"{release}:bp-voucher-operator"
    assert _reviewed(control_plane, account, watched) == SERVED | WIDE
    assert _reviewed(control_plane, account, release) == _lease("bp-voucher-operator") | WIDE
    assert _reviewed(control_plane, account, other) == WIDE
    assert _reviewed(control_plane, f"{release}:bp-voucher-operator-migration", watched) == set()
    assert _reviewed(control_plane, f"{release}:bp-voucher-operator-migration", release) == set()


def _roles(values: Document | None = None) -> dict[str, Document]:
    return {role["metadata"]["name"].removeprefix("bp-voucher-operator-"): role for role in _cluster_roles(values)}


def _cluster_roles(values: Document | None) -> list[Document]:
    """Those for people: what the operator itself may do is another matter."""
    roles = of_kind(render(values), "ClusterRole")
    return [role for role in roles if not role["metadata"]["name"].endswith(("-vouchers", "-orgs"))]


def _aggregated(role: Document) -> set[str]:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    return {label.removeprefix(prefix) for label in role["metadata"]["labels"] if label.startswith(prefix)}


def test_roles_for_people_have_exact_rights() -> None:
    """Exactly: nobody may write a status, a sovereign-admin reads no Secret, and `redeem` alone creates Redemptions."""
    roles = _roles()
    assert {name: _rights(role["rules"]) for name, role in roles.items()} == {
        "view": SEE,
        "edit": SEE | WRITE,
        "redeem": REDEEM,
        "sovereign-admin": SOVEREIGN_ADMIN,
    }
    assert {name: _aggregated(role) for name, role in roles.items()} == {
        "view": {"view"},
        "edit": {"edit"},
        "redeem": set(),
        "sovereign-admin": set(),
    }


def test_roles_for_people_can_be_disabled() -> None:
    """Left out of the cluster's own, or not made at all."""
    assert {_aggregated(role) == set() for role in _roles({"clusterRoles": {"aggregate": False}}).values()} == {True}
    assert _roles({"clusterRoles": {"create": False}}) == {}


def test_sovereign_admins_are_bound_where_vouchers_are_served() -> None:
    """In each served namespace and nowhere else."""
    documents = render(EVERYTHING, namespace="ops")
    bindings = [b for b in of_kind(documents, "RoleBinding") if b["roleRef"]["kind"] == "ClusterRole"]
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["one", "two"]
    group, account = bindings[0]["subjects"]
    assert group == {"kind": "Group", "name": "sovereign-admins", "apiGroup": "rbac.authorization.k8s.io"}
    assert account == {"kind": "ServiceAccount", "name": "shop", "namespace": "sme"}
    assert {binding["roleRef"]["name"] for binding in bindings} == {"bp-voucher-operator-sovereign-admin"}
    elsewhere = render({**EVERYTHING, "clusterRoles": {"create": False, "sovereignAdmin": "theirs"}})
    assert {
        b["roleRef"]["name"] for b in of_kind(elsewhere, "RoleBinding") if b["roleRef"]["kind"] == "ClusterRole"
    } == {"theirs"}


def test_api_server_grants_exactly_the_sovereign_admin_rights(
    control_plane: ControlPlane, three_namespaces: list[str]
) -> None:
    """A real API server gives a sovereign-admin these rights where vouchers are served, and nothing elsewhere."""
    release, watched, other = three_namespaces
    admin = {"kind": "ServiceAccount", "name": "admin", "namespace": other}
    # A name of its own: ClusterRoles are shared by all tests.
    name = f"vo-{secrets.token_hex(4)}"
    values = {"watchNamespaces": [watched], "sovereignAdmins": [admin], "fullnameOverride": name}
    control_plane.kubectl("apply", "-f", "-", input=template(values, namespace=release))
    assert _reviewed(control_plane, f"{other}:admin", watched) == SOVEREIGN_ADMIN
    assert _reviewed(control_plane, f"{other}:admin", release) == set()
    assert _reviewed(control_plane, f"{other}:admin", other) == set()


def _applied(control_plane: ControlPlane, namespace: str, user: str, *how: str) -> bool:
    """Apply a Redemption as a user; whether it is there then."""
    customer = {"userID": "ahmed", "tenantID": "kestrel", "email": "ahmed@example.com"}
    name = secrets.token_hex(4)
    body = {
        "apiVersion": f"{BILLING}/v1alpha1",
        "kind": "Redemption",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"code": "CODE", "customer": customer},
    }
    apply = ("apply", *how, "--validate=false", "-f", "-", "--as", user)
    control_plane.kubectl(*apply, input=json.dumps(body), check=False)
    return name in control_plane.kubectl("get", "redemptions", "-n", namespace, "-o", "name")


def test_cluster_roles_are_aggregated(control_plane: ControlPlane, three_namespaces: list[str]) -> None:
    """Whoever may view or edit a namespace sees or issues vouchers there, writes no status, and redeems nothing."""
    _, watched, _ = three_namespaces
    name = f"vo-{secrets.token_hex(4)}"
    control_plane.kubectl("apply", "-f", "-", input=template({"fullnameOverride": name}, namespace=watched))
    for role in ("view", "edit", "admin"):
        control_plane.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n", watched)

    def may(user: str, verb: str, kind: str, *options: str) -> bool:
        question = ("auth", "can-i", verb, f"{kind}.{BILLING}", "-n", watched, "--as", user, *options)
        answer = control_plane.kubectl(*question, check=False)
        return answer.strip().splitlines()[-1] == "yes"

    def settled() -> bool:
        """The controller that aggregates has seen both roles."""
        return may("view", "list", "vouchers") and may("edit", "create", "vouchers")

    wait_until(settled, "aggregated roles")
    assert not may("view", "create", "vouchers")
    assert may("edit", "delete", "redemptions")
    redeem = f"--clusterrole={name}-redeem"
    control_plane.kubectl("create", "rolebinding", "shop", redeem, "--user=shop", "-n", watched)
    wait_until(lambda: may("shop", "create", "redemptions"), "right of the shop")
    assert not may("shop", "create", "vouchers")
    for role in ("edit", "admin"):
        assert not may(role, "create", "redemptions")
    # The right to patch is none to create, for a server-side apply either.
    assert {_applied(control_plane, watched, "shop", *how) for how in ((), ("--server-side",))} == {True}
    assert {_applied(control_plane, watched, "edit", *how) for how in ((), ("--server-side",))} == {False}
    assert not may("edit", "patch", "vouchers", "--subresource=status")
    assert may("system:masters-nobody", "patch", "vouchers", "--subresource=status", "--as-group=system:masters")

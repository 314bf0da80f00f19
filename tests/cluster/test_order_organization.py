"""What was bought: the Organization of a completed order, where the cluster keeps Organizations.

The definition belongs to all of a cluster, so they have one of their own, and an operator in it. What a cluster without
Organizations says is in test_order_paid.py.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient, ApiException, CustomObjectsApi

from testbed.control_plane import ControlPlane
from testbed.postgres import PostgresServer
from testbed.scripted_stripe import ScriptedStripe
from tests.cluster.conftest import Sovereign, run_shared_operator, sovereign_for_one_test
from tests.cluster.resources import CustomObject, Object, Predicate, condition, unique, until, waiting
from tests.cluster.stripe_fixture import StripeFixture, conditions_of, order, purchase
from tests.cluster.test_order_paid import issued

pytestmark = [pytest.mark.xdist_group("own-cluster"), pytest.mark.long]

GROUP = "catalyst.openova.io"
ANY: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(scope: str, *required: str) -> Object:
    """Make a CRD as the platform may have it: its own fields, some of which are required."""
    schema = {"type": "object", "properties": {"spec": ANY | {"required": ["slug", *required]}, "status": ANY}}
    version = {"name": "v1alpha1", "served": True, "storage": True, "subresources": {"status": {}}}
    names = {"kind": "Organization", "plural": "organizations", "singular": "organization"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"organizations.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": names,
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }


class Registry:
    """The Organizations of a cluster, of either scope."""

    def __init__(self, control_plane: ControlPlane, client: ApiClient, scope: str, namespace: str) -> None:
        """`namespace` is where those are that do not belong to the cluster."""
        self._control_plane = control_plane
        self._api = CustomObjectsApi(client)
        self._scope = scope
        self._namespace = namespace if scope == "Namespaced" else None

    def define(self, *required: str) -> None:
        """Install or change the CRD so that these fields are required; wait until the API server enforces it."""
        text = yaml.safe_dump(definition(self._scope, *required))
        self._control_plane.kubectl("apply", "--server-side", "--filename=-", input=text)
        wait = ("wait", "--for=condition=Established", f"crd/organizations.{GROUP}", "--timeout=60s")
        self._control_plane.kubectl(*wait)
        until(lambda: self._insists() == bool(required), "CRD in force")

    def _insists(self) -> bool | None:
        """Whether it refuses one that has no more than a slug; None while nobody is served."""
        try:
            self.create("probe", {}, dry_run="All")
        except ApiException as error:
            return True if error.status == 422 else None
        return False

    def create(self, name: str, spec: Object, **options: str) -> None:
        """Create one, as another part of the platform does."""
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Organization", "metadata": {"name": name}}
        self._call("create", body=body | {"spec": {"slug": name, **spec}}, **options)

    def read(self, name: str) -> Object:
        """Read one."""
        return dict(self._call("get", name=name))

    def set_ready(self, name: str, status: str) -> None:
        """Write the status of one, as its controller does."""
        said = {"type": "Ready", "status": status, "reason": "Provisioning"}
        self._call("patch", "_status", name=name, body={"status": {"conditions": [said]}})

    def _call(self, verb: str, part: str = "", **more: Any) -> Any:
        where = {"group": GROUP, "version": "v1alpha1", "plural": "organizations"}
        if self._namespace is not None:
            return getattr(self._api, f"{verb}_namespaced_custom_object{part}")(
                **where, namespace=self._namespace, **more
            )
        return getattr(self._api, f"{verb}_cluster_custom_object{part}")(**where, **more)


@pytest.fixture(scope="module")
def client(own_cluster: ControlPlane) -> Iterator[ApiClient]:
    """An administrator's."""
    with own_cluster.client() as client:
        yield client


@pytest.fixture(scope="module")
def lend(
    own_cluster: ControlPlane,
    client: ApiClient,
    postgres18: PostgresServer,
    template18: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], AbstractContextManager[Sovereign]]]:
    """Run an operator for these tests; called, it is given to one of them."""
    folder = tmp_path_factory.mktemp("organizations")
    database = postgres18.database(f"organizations{secrets.token_hex(4)}", template18)
    with ScriptedStripe() as stripe:
        stripe_fixture = StripeFixture(stripe, folder)
        with run_shared_operator(own_cluster, database, stripe_fixture, folder) as running:
            yield lambda: sovereign_for_one_test(client, running, database, stripe_fixture)
    postgres18.drop(database)


@pytest.fixture
def sovereign(lend: Callable[[], AbstractContextManager[Sovereign]]) -> Iterator[Sovereign]:
    """Take the place of the session's."""
    with lend() as sovereign:
        yield sovereign


@pytest.fixture(params=["Namespaced", "Cluster"])
def registry(
    request: pytest.FixtureRequest, own_cluster: ControlPlane, client: ApiClient, sovereign: Sovereign
) -> Iterator[Registry]:
    """Have a CRD for one test."""
    try:
        yield Registry(own_cluster, client, request.param, sovereign.api.namespace)
    finally:
        own_cluster.kubectl("delete", "crd", f"organizations.{GROUP}", "--ignore-not-found", "--timeout=60s")


def refused(saying: str) -> Predicate:
    """Tell whether an Organization was refused so."""
    return lambda body: (
        waiting("OrganizationRefused")(body) and saying in condition(body, "OrganizationReady")["message"]
    )


def bought(sovereign: Sovereign, slug: str, tenant: str = "kestrel-pharmacy") -> CustomObject:
    """Buy for an Organization."""
    voucher, user = issued(sovereign), unique("user")
    customer = {"userID": user, "tenantID": tenant, "email": "ahmed@example.com"}
    return sovereign.api.redeem(voucher.code, customer=customer, order=order("m", subdomain=slug))


def test_organization_is_created_from_the_order(sovereign: Sovereign, registry: Registry) -> None:
    """Refused while the CRD requires more, reported and retried; then created, and followed until it is ready."""
    registry.define("tier")
    slug = unique("org")
    made = bought(sovereign, slug)
    body = made.wait(refused("spec.tier: Required value"))
    assert body["status"]["state"] == "Completed"
    assert "finished" not in body["status"]
    assert conditions_of(body)["PaymentSettled"] == ("True", "Completed")
    registry.define()
    body = made.wait(waiting("OrganizationNotReady"))
    organization = registry.read(slug)
    assert organization["spec"] == {
        "slug": slug,
        "tenantID": "kestrel-pharmacy",
        "owner": {"userID": made.spec["customer"]["userID"], "email": "ahmed@example.com"},
        "planID": "m",
        "apps": [],
        "addons": [],
    }
    assert organization["metadata"]["labels"]["billing.openova.io/order-id"] == body["status"]["orderID"]
    registry.set_ready(slug, "Unknown")
    made.wait(lambda body: condition(body, "OrganizationReady").get("status") == "Unknown")
    registry.set_ready(slug, "True")
    assert made.result() == ("Completed", "Completed")
    assert conditions_of(made.body())["OrganizationReady"] == ("True", "OrganizationCreated")
    made.delete()
    made.wait_gone()
    assert registry.read(slug)["metadata"]["uid"] == organization["metadata"]["uid"]


def test_existing_organization_of_the_tenant_is_adopted(sovereign: Sovereign, registry: Registry) -> None:
    """Also when others created it; but never another tenant's, and then nothing is bought."""
    registry.define()
    ours, theirs = unique("org"), unique("org")
    registry.create(ours, {"tenantID": "kestrel-pharmacy"})
    registry.set_ready(ours, "True")
    registry.create(theirs, {})
    adopted, kept_off = bought(sovereign, ours), bought(sovereign, theirs)
    assert adopted.result() == ("Completed", "Completed")
    assert registry.read(ours)["spec"] == {"slug": ours, "tenantID": "kestrel-pharmacy"}
    assert kept_off.result() == ("Rejected", "InvalidOrder")
    assert "belongs to another tenant" in condition(kept_off.body(), "OrderPlaced")["message"]
    assert purchase(sovereign.ledger, kept_off) == ()

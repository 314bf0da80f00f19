"""Wrong input is reported in status, pod or Helm, nothing crashes, and the operator recovers when it is fixed."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import yaml

from testbed.cluster import CRDS
from testbed.processes import TestbedError, wait_until
from tests.e2e.cluster import Document, Kind
from tests.e2e.ledger import Login, Server
from tests.e2e.objects import condition, redemption, voucher
from tests.e2e.operations import run
from tests.e2e.release import NAME, OWNER_SECRET, RUNTIME_SECRET, Release

Prepare = Callable[[str], Release]


def test_misspelt_value_is_refused_by_helm(billing: Release) -> None:
    """Helm's own error, before anything is changed."""
    with pytest.raises(TestbedError, match=r"additional properties 'replcas' not allowed"):
        billing.install({"replcas": 3})
    assert len(billing.pods()) == 2


def _ready(release: Release, kind: str, name: str) -> Document:
    return condition(release.kind.get(kind, name, release.namespace), "Ready")


def _matches(release: Release, text: str) -> None:
    """The Voucher's condition and the pod's /readyz say it; the pod is not ready."""
    kind, namespace = release.kind, release.namespace
    release.recheck()
    (pod,) = (one["metadata"]["name"] for one in release.pods())
    _wait_for_text(lambda: _ready(release, "voucher", "hopeful").get("message", ""), text)
    _wait_for_text(lambda: str(release.problems(pod)), text)
    kind.wait(f"pod/{pod}", "condition=Ready=False", namespace)


def _wait_for_text(read: Callable[[], str], text: str) -> None:
    text_read = ""

    def said() -> bool:
        nonlocal text_read
        text_read = read()
        return text in text_read

    try:
        wait_until(said, text, timeout=90)
    except TestbedError:
        raise AssertionError(f"not {text!r}, but: {text_read[-2000:]}") from None


def _migration_says(release: Release, text: str) -> None:
    migration = "app.kubernetes.io/component=migration"
    _wait_for_text(lambda: release.logs(migration), text)


def test_installation_succeeds_when_ledger_parts_come_one_by_one(
    prepare: Prepare, server: Server, runtime: Login
) -> None:
    """No Secret, then a wrong password, then no runtime role: one installation that is fixed step by step."""
    release = prepare("piecemeal")
    kind, namespace = release.kind, release.namespace
    kind.kubectl("delete", "secret", RUNTIME_SECRET, OWNER_SECRET, f"--namespace={namespace}")
    role = f"late_{release.database}"
    late = server.login(role, release.database, create=False)
    short_waits = {"migration": {"hookTimeout": 1}, "intervals": {"backoffMax": 5}}
    release.install({"replicas": 1, "runtimeRole": role, **short_waits})
    kind.apply(voucher("hopeful", "HOPEFUL"), redemption("hopeful", "hopeful", code="HOPEFUL"), namespace=namespace)
    kind.wait("voucher/hopeful", "condition=Reconciling", namespace)
    _matches(release, "check the Secret that they are mounted from")

    wrong = (
        release.owner.secret(OWNER_SECRET, "wrong"),
        replace(runtime, database=late.database).secret(RUNTIME_SECRET, "wrong"),
    )
    kind.apply(*wrong, namespace=namespace)
    _matches(release, "PostgreSQL refuses the login")
    _migration_says(release, "PostgreSQL refuses the login")

    kind.apply(release.owner.secret(OWNER_SECRET), late.secret(RUNTIME_SECRET), namespace=namespace)
    release.recheck()
    _migration_says(release, "CREATE ROLE")

    server.create(late)
    release.await_ready()
    kind.wait("redemption/hopeful", "jsonpath={.status.state}=Redeemed", namespace)
    assert release.restarts() == 0
    assert release.verify() == "the ledger is consistent"
    release.uninstall()


def test_second_release_serves_only_its_own_namespace(billing: Release, prepare: Prepare, runtime: Login) -> None:
    """Helm says whose the cluster's roles are; without them a second one serves its namespace beside the first."""
    kind = billing.kind
    second = replace(prepare("second"), name=NAME)
    with pytest.raises(TestbedError, match="exists and cannot be imported into the current release"):
        second.install()
    both = {"watchNamespaces": [second.namespace, billing.namespace], "clusterRoles": {"create": False}}
    with pytest.raises(TestbedError, match=f"{billing.namespace} is already served by the release {NAME}"):
        second.install(both)

    login = replace(runtime, database=billing.database)
    kind.apply(billing.owner.secret(OWNER_SECRET), login.secret(RUNTIME_SECRET), namespace=second.namespace)
    second.install({"replicas": 1, "clusterRoles": {"create": False}})
    second.await_ready()
    kind.apply(voucher("first", "OF-TWO-RELEASES"), namespace=billing.namespace)
    kind.wait("voucher/first", "condition=Ready", billing.namespace)
    own = voucher("own", "OF-THE-SECOND"), voucher("second", "OF-TWO-RELEASES")
    kind.apply(*own, namespace=second.namespace)
    kind.wait("voucher/own", "condition=Ready", second.namespace)
    kind.wait("voucher/second", "condition=Stalled", second.namespace)
    assert "a Voucher of another namespace" in _ready(second, "voucher", "second")["message"]
    assert _ready(billing, "voucher", "first")["reason"] == "Issued"
    assert second.restarts() == 0
    second.uninstall()


@pytest.fixture
def old_crds(kind: Kind) -> Iterator[None]:
    """CRDs of an earlier time: a field of the status and a selector are missing. The present ones are put back."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]
    for document in documents:
        (version,) = document["spec"]["versions"]
        version.pop("selectableFields", None)
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"].pop("state")
        version["additionalPrinterColumns"] = []
    # Nobody may have installed any yet.
    kind.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    for document in documents:
        kind.kubectl("replace", "--filename=-", input=yaml.safe_dump(document))
    yield
    kind.kubectl("replace", f"--filename={CRDS}")


@pytest.mark.usefixtures("old_crds")
def test_older_crds_are_reported_until_replaced(prepare: Prepare) -> None:
    """The pod is not ready and says what is missing; with the CRDs of its version it goes on by itself."""
    release = prepare("oldcrds")
    release.install({"replicas": 1}, "--skip-crds")
    kind, namespace = release.kind, release.namespace
    kind.kubectl("wait", "pods", f"--namespace={namespace}", "--all", "--for=create", "--timeout=30s")
    wait_until(lambda: len(release.pods()) == 1, "pod")
    pod = release.pods()[0]["metadata"]["name"]
    kind.wait(f"pod/{pod}", "jsonpath={.status.containerStatuses[0].started}=true", namespace)
    _wait_for_text(release.logs, "waiting for the CRDs: The CRDs are older than the operator: Redemption.status.state")
    assert "older than the operator" in release.problems(pod)["resources"]
    kind.wait(f"pod/{pod}", "condition=Ready=False", namespace)

    run(kind, "Upgrade")
    release.await_ready()
    kind.apply(voucher("hopeful", "OLD-CRDS"), redemption("hopeful", "hopeful", code="OLD-CRDS"), namespace=namespace)
    kind.wait("redemption/hopeful", "jsonpath={.status.state}=Redeemed", namespace)
    assert release.restarts() == 0
    release.uninstall()

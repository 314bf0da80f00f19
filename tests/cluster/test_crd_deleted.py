"""CRDs that are deleted, replaced or applied in an older version while a replica leads: it serves them again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.cluster import CRDS, install_crds, install_rights
from testbed.control_plane import ControlPlane
from testbed.fork_server import ForkServer
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from testbed.processes import wait_until
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient, ready, status, unique
from tests.cluster.test_chaos_api import release_vouchers
from tests.cluster.test_voucher_delete import GONE, REVOKED, remove_finalizer, row_state
from tests.conftest import Operators

pytestmark = [pytest.mark.xdist_group("own-cluster"), pytest.mark.long]

VOUCHERS, REDEMPTIONS = (f"{plural}.billing.openova.io" for plural in ("vouchers", "redemptions"))
SAID = ["waiting for the CRDs", "stopping the controllers"]
KEEPS_LEASE = {"VOUCHER_OPERATOR_LEASE_DURATION": "3600", "VOUCHER_OPERATOR_RENEW_DEADLINE": "3000"}


@pytest.fixture
def control_plane(own_cluster: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster whose CRDs these tests change; CRDs belong to the whole cluster."""
    release_vouchers(own_cluster)
    yield own_cluster
    if is_installed(own_cluster, VOUCHERS):
        replace(own_cluster, present())
    install_crds(own_cluster)


@pytest.fixture
def api(control_plane: ControlPlane, namespace: str) -> Iterator[ResourceClient]:
    with control_plane.client() as client:
        yield ResourceClient(client, namespace)


def delete(cluster: ControlPlane, name: str, *, wait: bool = True) -> None:
    cluster.kubectl("delete", "crd", name, f"--wait={str(wait).lower()}", "--timeout=60s")


def is_installed(cluster: ControlPlane, name: str) -> bool:
    return bool(cluster.kubectl("get", "crd", name, "--ignore-not-found", "--output=name").strip())


def problem(operator: OperatorProcess) -> str:
    """What /readyz says about the CRDs; empty when nothing."""
    return str(operator.ready().get("problems", {}).get("resources", ""))


def wait_for_problem(operator: OperatorProcess, text: str) -> None:
    wait_until(lambda: text in problem(operator), f"{text!r} in /readyz", alive=None)


def stopped(operator: OperatorProcess) -> list[str]:
    """The causes for which the controllers were stopped, as logged."""
    said = [record["message"] for record in operator.records()]
    return [text.partition(": ")[2] for text in said if text.startswith("stopping the controllers")]


def waits(operator: OperatorProcess) -> bool:
    """Whether it has stopped its controllers, and waits for the CRDs."""
    return any(record["message"].startswith("waiting for the CRDs") for record in operator.records())


def test_crds_that_are_deleted_and_applied_again_are_served_without_a_restart(
    control_plane: ControlPlane, api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """Redemptions first: the leader sees it, and then Vouchers wait for their finalizers, which nobody watches."""
    operators.allow += SAID
    operator = operators.start(env=FAST)
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    delete(control_plane, REDEMPTIONS)
    wait_for_problem(operator, "CRDs redemptions of billing.openova.io/v1alpha1 are not installed")
    wait_until(lambda: waits(operator), "stop of the controllers")

    delete(control_plane, VOUCHERS, wait=False)
    control_plane.kubectl("apply", "--server-side", f"--filename={CRDS}/{REDEMPTIONS}.yaml")
    wait_until(lambda: not is_installed(control_plane, VOUCHERS), "end of the CRD of Vouchers")
    assert row_state(ledger, voucher) == REVOKED
    wait_for_problem(operator, "vouchers of billing.openova.io/v1alpha1 are not installed")

    install_crds(control_plane)
    again = api.voucher("again", code=voucher.code)
    again.wait(ready("Issued"))
    assert api.redeem(again.code).result() == ("Redeemed", "Redeemed")
    operator.wait_ready(leader=True)
    again.delete()
    again.wait_gone()
    operator.stop()


def test_vouchers_are_released_while_their_crd_is_deleted(
    control_plane: ControlPlane, api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """A leader that starts while the CRD is being deleted: it says so, and the deletion ends."""
    operators.allow += SAID
    operator = operators.start(env=FAST)
    vouchers = [api.voucher() for _ in range(20)]
    for voucher in vouchers:
        voucher.wait(ready("Issued"))
    operator.stop()
    delete(control_plane, VOUCHERS, wait=False)
    operator = operators.start(env=FAST | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    wait_for_problem(operator, "The CRD vouchers is being deleted with all its resources")
    operator.stop()
    assert is_installed(control_plane, VOUCHERS)
    operators.allow.append("the ledger cannot be used")
    operator = operators.start(env=FAST)
    wait_until(lambda: not is_installed(control_plane, VOUCHERS), "end of the CRD of Vouchers")
    assert [row_state(ledger, voucher) for voucher in vouchers] == [REVOKED] * 20
    operator.stop()


def test_crd_deletion_ends_also_with_vouchers_in_a_namespace_that_is_not_served_any_more(
    control_plane: ControlPlane,
    api: ResourceClient,
    ledger: LedgerReader,
    database18: Database,
    tmp_path: Path,
    fork_server: ForkServer,
) -> None:
    """A leader that starts while the CRD is being deleted: its periodic tasks do not run."""

    def serve(*namespaces: str) -> OperatorProcess:
        installed = install_rights(control_plane, list(namespaces))
        return Operators(installed, database18, tmp_path, fork_server).start(env=FAST)

    with control_plane.client() as client:
        other = ResourceClient(client, control_plane.namespace(unique("tenant")))
        operator = serve(api.namespace, other.namespace)
        voucher = other.voucher()
        voucher.wait(ready("Issued"))
        operator.stop()
        delete(control_plane, VOUCHERS, wait=False)
        operator = serve(api.namespace)
        wait_until(lambda: not is_installed(control_plane, VOUCHERS), "end of the CRD of Vouchers")
    assert row_state(ledger, voucher) == REVOKED
    operator.stop()
    assert operator.unexpected([*SAID, "namespace is not served, but has Vouchers"]) == []


def test_replaced_crds_are_noticed_by_their_uid(
    control_plane: ControlPlane, api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """Between two looks of the operator, without its finalizers: the code of the former Voucher is revoked."""
    operators.allow += [*SAID, GONE]
    operator = operators.start(env=FAST | KEEPS_LEASE)
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    operator.sigstop()
    remove_finalizer(voucher)
    for name in (VOUCHERS, REDEMPTIONS):
        delete(control_plane, name)
    install_crds(control_plane)
    operator.sigcont()
    wait_until(lambda: row_state(ledger, voucher) == REVOKED, "revocation")
    wait_until(lambda: stopped(operator) != [], "stop of the controllers")
    assert "The CRD vouchers was replaced" in stopped(operator)[0]
    other = api.voucher()
    other.wait(ready("Issued"))
    operator.wait_ready(leader=True)


def present() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CRDS / f"{VOUCHERS}.yaml").read_text())
    return document


def replace(cluster: ControlPlane, document: dict[str, Any]) -> None:
    cluster.kubectl("replace", "--filename=-", input=yaml.safe_dump(document))


@pytest.mark.usefixtures("ledger")
def test_older_crd_is_noticed_and_the_present_one_is_served_again(
    control_plane: ControlPlane, api: ResourceClient, operators: Operators
) -> None:
    """Without the subresource for the status nothing can be written; without columns everything works."""
    operators.allow += SAID
    operator = operators.start(env=FAST)
    api.voucher().wait(ready("Issued"))
    older = present()
    older["spec"]["versions"][0]["additionalPrinterColumns"] = []
    replace(control_plane, older)
    api.voucher().wait(ready("Issued"))
    del older["spec"]["versions"][0]["subresources"]
    replace(control_plane, older)
    wait_for_problem(operator, "older than the operator: subresource status of vouchers missing")
    wait_until(lambda: stopped(operator) != [], "stop of the controllers")
    waiting = api.voucher()
    replace(control_plane, present())
    waiting.wait(ready("Issued"))
    operator.wait_ready(leader=True)


@pytest.mark.usefixtures("ledger")
def test_crd_with_another_storage_version_is_served(
    control_plane: ControlPlane, api: ResourceClient, operators: Operators
) -> None:
    """As a later version of the operator may bring it, before a rollback."""
    operator = operators.start(env=FAST)
    voucher = api.voucher(maxRedemptions=2)
    voucher.wait(ready("Issued"))
    newer = present()
    (version,) = newer["spec"]["versions"]
    newer["spec"]["versions"] = [version | {"storage": False}, version | {"name": "v1beta1"}]
    replace(control_plane, newer)
    try:
        assert api.redeem(voucher.code).result() == ("Redeemed", "Redeemed")
        voucher.wait(status(timesRedeemed=1))
        voucher.edit(maxRedemptions=1)
        voucher.wait(status(state="Exhausted"))
        later = api.voucher()
        later.wait(ready("Issued"))
        operator.wait_ready(leader=True)
        for made in (voucher, later):
            made.delete()
            made.wait_gone()
    finally:
        # A version that is named there cannot be removed from the CRD.
        newer["spec"]["versions"] = [version, version | {"name": "v1beta1", "storage": False}]
        replace(control_plane, newer)
        stored = json.dumps({"status": {"storedVersions": ["v1alpha1"]}})
        control_plane.kubectl("patch", "crd", VOUCHERS, "--subresource=status", "--type=merge", f"--patch={stored}")

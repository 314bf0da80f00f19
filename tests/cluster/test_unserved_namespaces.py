"""A namespace is removed from those that the operator serves: its codes are kept or revoked, and nothing hangs.

See also: tests/ledger/test_namespaces.py for what the ledger knows of namespaces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from testbed.cluster import command, install_rights
from testbed.control_plane import ControlPlane
from testbed.fork_server import ForkServer
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from testbed.processes import TestbedError
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, CustomObject, ResourceClient, condition, ready, stalled, status, unique, until
from tests.conftest import Operators

OFTEN = FAST | {"VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"}
GRANTED = ("Redeemed", "Redeemed")
FINALIZER = "billing.openova.io/revoke"
UNSERVED = (
    "SELECT t.code FROM vouchers.terms AS t JOIN vouchers.served_namespace AS s ON s.namespace = t.owner_namespace "
    "WHERE t.revoked_at IS NULL AND s.dropped_at IS NOT NULL"
)
EXPECTED = ["namespace is not served, but has Vouchers", "revoked the code of a deleted Voucher"]


@dataclass
class Release:
    """An operator that served two namespaces, and serves only the first one now; `start` serves what it is given."""

    first: ResourceClient
    second: ResourceClient
    ledger: LedgerReader
    cluster: ControlPlane
    start: Callable[..., OperatorProcess]
    running: list[OperatorProcess] = field(default_factory=list)

    def serve(self, *clients: ResourceClient, unserved: str = "keep") -> OperatorProcess:
        """Serve exactly these namespaces, with the rights that the chart gives for them."""
        for operator in self.running:
            operator.stop()
        namespaces = list(dict.fromkeys(client.namespace for client in clients))
        if self.second.namespace not in namespaces:
            self.cluster.kubectl("--namespace", self.second.namespace, "delete", "rolebindings,roles", "--all")
        self.running = [self.start(namespaces, OFTEN | {"VOUCHER_OPERATOR_UNSERVED_VOUCHERS": unserved})]
        self.running[0].wait_ready(leader=True)
        return self.running[0]

    def is_redeemable(self, voucher: CustomObject) -> bool:
        """Whether the ledger has the code."""
        _, active, _, _, deleted = self.ledger.promo(voucher.code)
        return bool(active) and not deleted


@pytest.fixture
def release(
    control_plane: ControlPlane,
    admin: ApiClient,
    api: ResourceClient,
    ledger: LedgerReader,
    database18: Database,
    tmp_path: Path,
    fork_server: ForkServer,
) -> Iterator[Release]:
    other = ResourceClient(admin, control_plane.namespace(unique("tenant")))
    operators: list[Operators] = []

    def start(namespaces: list[str], env: dict[str, str]) -> OperatorProcess:
        operators.append(Operators(install_rights(control_plane, namespaces), database18, tmp_path, fork_server))
        return operators[-1].start(env=env)

    made = Release(api, other, ledger, control_plane, start)
    yield made
    # `verify` finds no Voucher at the end that is not served.
    made.serve(made.first, made.second)
    until(lambda: ledger.rows(UNSERVED) == [], "no Voucher that is not served")
    for operator in made.running:
        operator.stop()
        assert operator.unexpected(EXPECTED) == []


def issued(client: ResourceClient) -> CustomObject:
    voucher = client.voucher()
    voucher.wait(ready("Issued"))
    return voucher


def test_codes_of_a_dropped_namespace_are_kept_and_reported_and_come_back(release: Release) -> None:
    release.serve(release.first, release.second)
    voucher = issued(release.second)
    operator = release.serve(release.first)
    body = voucher.wait(stalled("NamespaceNotServed"))
    assert condition(body, "Redeemable")["status"] == "Unknown"
    assert "watchNamespaces" in condition(body, "Ready")["message"]
    assert release.first.redeem(voucher.code).result() == GRANTED
    until(lambda: operator.metrics()["voucher_operator_unserved_vouchers"] == 1, "metric")
    with pytest.raises(TestbedError, match=f"voucher {release.second.namespace}/{voucher.name} is live"):
        command(release.ledger.database.runtime_url, "verify")
    release.serve(release.first, release.second)
    voucher.wait(lambda body: ready("Issued")(body) and body["status"]["timesRedeemed"] == 1)
    assert command(release.ledger.database.runtime_url, "verify").strip() == "the ledger is consistent"


def test_voucher_in_a_dropped_namespace_can_be_stopped_and_deleted(release: Release) -> None:
    release.serve(release.first, release.second)
    stopped, deleted, forced = (issued(release.second) for _ in range(3))
    release.serve(release.first)
    for voucher in (stopped, deleted, forced):
        voucher.wait(stalled("NamespaceNotServed"))
    stopped.edit(active=False)
    until(lambda: not release.is_redeemable(stopped), "deactivation")
    deleted.delete()
    deleted.wait_gone()
    assert not release.is_redeemable(deleted)
    forced.patch({"metadata": {"finalizers": None}})
    forced.delete()
    until(lambda: not release.is_redeemable(forced), "revocation of the orphan")


def test_namespace_that_is_dropped_and_then_deleted_ends(release: Release, control_plane: ControlPlane) -> None:
    """Its Role is gone: the ClusterRole is enough."""
    release.serve(release.first, release.second)
    voucher = issued(release.second)
    release.serve(release.first)
    control_plane.kubectl("delete", "namespace", release.second.namespace, "--timeout=60s")
    assert not release.is_redeemable(voucher)
    query = "SELECT cleared_at IS NOT NULL FROM vouchers.served_namespace WHERE namespace = %s"
    until(lambda: release.ledger.rows(query, release.second.namespace) == [(True,)], "cleared namespace")
    release.second = release.first


def test_codes_of_a_dropped_namespace_are_revoked_by_the_setting_and_come_back(release: Release) -> None:
    release.serve(release.first, release.second)
    voucher = issued(release.second)
    assert release.first.redeem(voucher.code).result() == GRANTED
    release.serve(release.first, unserved="revoke")
    body = voucher.wait(stalled("NamespaceNotServed"))
    assert (body["status"]["state"], condition(body, "Redeemable")["reason"]) == ("Inactive", "NotIssued")
    assert FINALIZER not in body["metadata"].get("finalizers", [])
    assert release.first.redeem(voucher.code).result() == ("Rejected", "VoucherNotFound")
    release.serve(release.first, release.second)
    voucher.wait(lambda body: status(state="Active", timesRedeemed=1)(body) and ready("Issued")(body))

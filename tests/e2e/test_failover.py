"""A CloudNativePG cluster fails over under load: nothing is lost or granted twice, and no operator is restarted.

The operator is installed by the chart from the Secrets that CloudNativePG makes, with TLS verified against its
authority. Each test waits until all instances are ready again.

See also: `failover` is the cluster; tests/ledger/test_frozen_server.py and test_replication.py have the single cases.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.processes import wait_until
from tests.e2e import failover
from tests.e2e.cluster import Kind
from tests.e2e.failover import PostgresCluster
from tests.e2e.ledger import Login
from tests.e2e.load import Load, api
from tests.e2e.objects import restricted_namespace, voucher
from tests.e2e.probe import WriteProbe
from tests.e2e.release import Release
from tests.e2e.workloads import SHOP, shop_rights

FIRST_RESULT = 5.0
"""Seconds between the first write that the new primary takes and the first Redemption that finishes."""
LONGEST = 240.0
PLAN = {"id": "s", "slug": "small", "name": "Small", "price_omr": 3}
DATABASE = {
    "existingSecret": failover.RUNTIME_SECRET,
    "ownerSecret": f"{failover.NAME}-app",
    "host": f"{failover.NAME}-rw",
    "name": "ledger",
    "caSecret": {"name": f"{failover.NAME}-ca"},
}


@pytest.fixture(scope="module")
def postgres(kind: Kind, suffix: str, pytestconfig: pytest.Config) -> PostgresCluster:
    folder = pytestconfig.getoption("cnpg")
    if not folder:
        pytest.fail("the tests of a failover need --cnpg, see CONTRIBUTING.md")
    failover.install(kind, Path(folder))
    namespace = f"failover-{suffix}"
    kind.apply(restricted_namespace(namespace))
    cluster = PostgresCluster(kind, namespace, Path(folder))
    cluster.create(secrets.token_hex(8))
    return cluster


@pytest.fixture(scope="module")
def release(kind: Kind, postgres: PostgresCluster) -> Release:
    """The operator beside it, with a catalog, so that customers can buy by credit."""
    namespace = postgres.namespace
    catalog = {"catalog.json": json.dumps({"plans": [PLAN], "addons": []})}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "catalog"}, "data": catalog}
    kind.apply(document, *shop_rights(namespace), namespace=namespace)
    values = {"database": DATABASE, "catalog": {"existingConfigMap": "catalog"}}
    release = Release(kind, namespace, Login("ledger", "billing", "", ""), "failover-voucher-operator", values=values)
    release.install()
    release.await_ready()
    return release


@pytest.fixture
def fault(release: Release, postgres: PostgresCluster, request: pytest.FixtureRequest) -> Iterator["Fault"]:
    postgres.await_ready()
    yield Fault(release, postgres, request.node.name.split("[")[-1].strip("]").removeprefix("test_").replace("_", "-"))
    postgres.await_ready()


class Fault:
    """What happens to the primary under load, and what must be true afterwards."""

    def __init__(self, release: Release, postgres: PostgresCluster, name: str) -> None:
        self._release = release
        self.postgres = postgres
        self._code = name.upper()[:40]

    @contextmanager
    def under_load(self) -> Iterator[Load]:
        """Redeem and buy; in the end all is there once, and no operator was started again."""
        kind, namespace, name = self._release.kind, self._release.namespace, self._code.lower()
        kind.apply(voucher(name, self._code), namespace=namespace)
        kind.wait(f"voucher/{name}", "condition=Ready", namespace, timeout=120)
        restarts = self._operator_restarts()
        shop = api(kind.service_account_kubeconfig(namespace, SHOP))
        with Load(shop, namespace, self._code, name, plan="s") as load:
            load.await_more()
            yield load
            load.await_more(40, timeout=LONGEST)
        assert set(load.states) == {"Redeemed", "Completed"}
        self._check_ledger(load.finished)
        assert self._operator_restarts() == restarts
        self._release.await_ready()

    def finishes_soon_after_writes_are_taken(self, load: Load, probe: WriteProbe) -> None:
        """The first Redemption after the longest time without writes finishes within seconds."""
        _, written = probe.longest_gap()
        first = min(at for at in load.times if at > written)
        print(f"{self._code}: first result {first - written:.1f} s after the first write")
        assert first - written < FIRST_RESULT

    def _check_ledger(self, count: int) -> None:
        self.postgres.await_ready()
        rows = f"SELECT count(*), count(DISTINCT customer_id) FROM promo_redemptions WHERE code = '{self._code}'"
        assert self.postgres.sql(rows) == f"{count}|{count}"
        assert self._release.verify() == "the ledger is consistent"

    def _operator_restarts(self) -> dict[str, int]:
        return {
            pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
            for pod in self._release.pods()
        }


def lost(postgres: PostgresCluster, primary: str) -> None:
    postgres.delete(primary, force=True)


def drained(postgres: PostgresCluster, primary: str) -> None:
    """With CloudNativePG's default, the primary waits three minutes for its clients to leave."""
    postgres.delete(primary)


def switched_over(postgres: PostgresCluster, primary: str) -> None:
    assert primary
    postgres.promote(postgres.standby())


def upgraded(postgres: PostgresCluster, primary: str) -> None:
    assert primary
    postgres.restart()


@pytest.mark.parametrize("happens", [lost, drained, switched_over, upgraded])
def test_failover_loses_nothing(fault: Fault, happens: Callable[[PostgresCluster, str], None]) -> None:
    primary = fault.postgres.primary()
    with fault.under_load() as load, WriteProbe(fault.postgres.outside_url()) as probe:
        happens(fault.postgres, primary)
        fault.postgres.await_promotion(primary)
        load.await_more(20, timeout=LONGEST)
        fault.finishes_soon_after_writes_are_taken(load, probe)


def test_frozen_primary_is_left(fault: Fault) -> None:
    """TCP to it goes on; it runs again when there is another primary, and nobody writes to it."""
    primary = fault.postgres.primary()
    with fault.under_load() as load, WriteProbe(fault.postgres.outside_url()) as probe:
        fault.postgres.freeze(primary)
        fault.postgres.await_promotion(primary)
        load.await_more(20, timeout=LONGEST)
        fault.postgres.thaw(primary)
        fault.finishes_soon_after_writes_are_taken(load, probe)


def test_rotated_password_is_used(fault: Fault, release: Release) -> None:
    """The open connections go on; new ones work as soon as the kubelet has brought the new password."""
    with fault.under_load() as load:
        fault.postgres.set_password(secrets.token_hex(8))
        load.await_more(20)
        release.recheck()
        fault.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'voucher_operator'")
        load.await_more(20, timeout=LONGEST)


def test_full_disk_is_reported_and_survived(fault: Fault) -> None:
    """All instances share the disk of the node: nobody can take over, and all goes on when there is room again."""
    with fault.under_load() as load:
        fault.postgres.fill_disk()
        try:
            wait_until(lambda: not fault.postgres.takes_writes(), "no more writes", timeout=LONGEST)
        finally:
            fault.postgres.free_disk()
        load.await_more(20, timeout=LONGEST)

"""Killed pods and processes are replaced, and nothing is lost or granted twice."""

import time
from collections.abc import Callable

from testbed.processes import wait_until
from tests.e2e.ledger import Server
from tests.e2e.load import Load
from tests.e2e.objects import condition, redemption, voucher
from tests.e2e.release import Release

TAKEOVER = 15.0
"""Seconds without a leader that are too many: the Lease lasts 9, and a standby looks every 1.5."""

# The process, not the pod, so that it cannot shut down. Its name is in its own environment alone.
KILL = """
for process in /proc/[0-9]*; do
    if tr '\\0' '\\n' <"$process/environ" 2>/dev/null | grep -qxF "VOUCHER_OPERATOR_POD_NAME=$1"; then
        kill -KILL "${process#/proc/}" && echo killed
    fi
done
"""

Loads = Callable[[Release, str], Load]


def _sound(release: Release, server: Server, code: str, count: int) -> None:
    """Each Redemption that says so has its row, and no row is anybody else's."""
    rows = f"SELECT count(*), count(DISTINCT customer_id) FROM promo_redemptions WHERE code = '{code}'"
    assert server.sql(rows, release.database) == f"{count}|{count}"
    credit = f"SELECT count(*), sum(amount_omr) FROM credit_ledger WHERE reason = 'promo:{code}'"
    assert server.sql(credit, release.database) == f"{count}|{5 * count}"
    assert release.verify() == "the ledger is consistent"


def test_killed_leader_is_replaced(billing: Release, server: Server, loads: Loads) -> None:
    """SIGKILL for the process, and its pod is gone as well, so that it cannot come back to its own Lease."""
    kind, namespace = billing.kind, billing.namespace
    kind.apply(voucher("killed", "LEADER-KILLED"), namespace=namespace)
    kind.wait("voucher/killed", "condition=Ready", namespace)
    with loads(billing, "LEADER-KILLED") as load:
        load.await_more()
        leader = billing.leader()
        assert leader
        assert kind.node(KILL, leader).split() == ["killed"]
        killed = time.monotonic()
        kind.kubectl("delete", "pod", leader, f"--namespace={namespace}", "--grace-period=0", "--force")
        wait_until(lambda: billing.leader() not in ("", leader), "new leader", timeout=TAKEOVER)
        assert time.monotonic() - killed < TAKEOVER
        load.await_more(20)
    assert set(load.states) == {"Redeemed"}
    _sound(billing, server, "LEADER-KILLED", load.finished)
    billing.await_ready()


def test_deleted_database_pod_loses_nothing(billing: Release, server: Server, loads: Loads) -> None:
    """A crash of the server, not a shutdown: whatever was under way is answered once, when it is back."""
    kind, namespace = billing.kind, billing.namespace
    kind.apply(voucher("crash", "SERVER-CRASH"), namespace=namespace)
    kind.wait("voucher/crash", "condition=Ready", namespace)
    before = billing.restarts()
    with loads(billing, "SERVER-CRASH") as load:
        load.await_more()
        server.delete_pod()
        server.await_ready()
        load.await_more(20)
    assert set(load.states) == {"Redeemed"}
    _sound(billing, server, "SERVER-CRASH", load.finished)
    assert billing.restarts() == before


def test_resources_report_an_absent_database_and_recover(billing: Release, server: Server) -> None:
    """The resources report it, the pods are not ready and not restarted, and the operator recovers."""
    kind, namespace = billing.kind, billing.namespace
    before = billing.restarts()
    server.stop()
    try:
        kind.apply(voucher("away", "LEDGER-AWAY"), redemption("away", "away", code="LEDGER-AWAY"), namespace=namespace)
        for what in ("voucher", "redemption"):
            reason = 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}=LedgerUnavailable'
            kind.wait(f"{what}/away", reason, namespace)
            assert condition(kind.get(what, "away", namespace), "Reconciling")["status"] == "True"
        for pod in billing.pods():
            kind.wait(f"pod/{pod['metadata']['name']}", "condition=Ready=False", namespace)
            assert "ledger" in billing.problems(pod["metadata"]["name"])
    finally:
        server.start()
    kind.wait("redemption/away", "jsonpath={.status.state}=Redeemed", namespace)
    billing.await_ready()
    assert billing.restarts() == before
    assert billing.verify() == "the ledger is consistent"

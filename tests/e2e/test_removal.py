"""What `helm uninstall` leaves, and the documented way out for a namespace that waits for a finalizer."""

from collections.abc import Callable

from testbed.processes import wait_until
from tests.e2e.ledger import Server
from tests.e2e.objects import redemption, voucher
from tests.e2e.operations import run
from tests.e2e.release import Release

ROWS = """
    SELECT code, times_redeemed, deleted_at FROM promo_codes; SELECT * FROM credit_ledger;
    SELECT * FROM vouchers.redemption;
"""
LIVE = "SELECT (SELECT count(*) FROM credit_ledger), (SELECT count(*) FROM promo_codes WHERE deleted_at IS NULL)"


def test_uninstall_and_reinstall_keep_the_ledger(
    prepare: Callable[[str], Release], renew: Callable[[Release], None], server: Server
) -> None:
    release = prepare("removal")
    kind, namespace = release.kind, release.namespace
    release.install({"replicas": 1})
    release.await_ready()
    kind.apply(voucher("kept", "KEPT-CODE"), redemption("given", "given", code="KEPT-CODE"), namespace=namespace)
    kind.wait("voucher/kept", "jsonpath={.status.timesRedeemed}=1", namespace)
    rows = server.sql(ROWS, release.database)

    release.uninstall()
    assert kind.get("voucher", "kept", namespace)["status"]["timesRedeemed"] == 1
    assert kind.get("redemption", "given", namespace)["status"]["state"] == "Redeemed"
    assert server.sql(ROWS, release.database) == rows

    release.install({"replicas": 1})
    release.await_ready()
    kind.apply(redemption("next", "next", code="KEPT-CODE"), namespace=namespace)
    kind.wait("voucher/kept", "jsonpath={.status.timesRedeemed}=2", namespace)
    assert release.verify() == "the ledger is consistent"

    release.uninstall()
    _leave(release)
    assert server.sql(LIVE, release.database) == "2|1"
    renew(release)
    release.install({"replicas": 1})
    wait_until(lambda: server.sql(LIVE, release.database) == "2|0", "revoked code, and all that was given")


def _leave(release: Release) -> None:
    """No operator runs that would remove the finalizers: the commands of docs/operations.md do it."""
    kind, namespace = release.kind, release.namespace
    kind.kubectl("delete", "namespace", namespace, "--wait=false")
    held = 'jsonpath={.status.conditions[?(@.type=="NamespaceFinalizersRemaining")].status}=True'
    kind.wait(f"namespace/{namespace}", held, namespace)
    run(kind, "A namespace that does not go away", NAMESPACE=namespace)
    kind.wait(f"namespace/{namespace}", "delete", namespace)

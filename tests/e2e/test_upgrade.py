"""From the previous version to this one while customers redeem: no request fails, nothing is granted twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.cluster import CHART, CRDS
from testbed.processes import wait_until
from tests.e2e import images
from tests.e2e.cluster import Kind
from tests.e2e.ledger import Server
from tests.e2e.load import Load
from tests.e2e.objects import from_secret, redemption, secret, voucher
from tests.e2e.operations import run
from tests.e2e.previous import sources
from tests.e2e.release import Release

LEDGER = """
    SELECT key, outcome, reason, code, customer_id, credit_minor, grant_entry_id, decided_at FROM vouchers.redemption
    WHERE key NOT LIKE '%/upgrade-load-%' ORDER BY key;
    SELECT id, customer_id, amount_omr, amount_minor, reason, order_id, created_at, status
    FROM credit_ledger WHERE reason <> 'promo:UPGRADE-LOAD' ORDER BY id;
"""


@pytest.fixture
def previous(kind: Kind, tmp_path: Path, pytestconfig: pytest.Config) -> Path:
    """The sources of the previous version; its image is on the node."""
    source = sources(tmp_path)
    images.build_operator(images.PREVIOUS, pytestconfig.getoption("python_base"), source)
    kind.load(images.PREVIOUS)
    return source


@pytest.fixture
def old(previous: Path, prepare: Callable[[str], Release]) -> Release:
    """The previous version, installed and ready, with its CRDs."""
    release = prepare("upgrade")
    release.kind.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={previous / 'crds'}")
    installed = replace(release, chart=previous / CHART.relative_to(CRDS.parent), image=images.PREVIOUS)
    installed.install()
    installed.await_ready()
    return installed


def _history(release: Release) -> None:
    """Vouchers and Redemptions of every kind: redeemed, refused, and one that still waits for its Secret."""
    kind, namespace = release.kind, release.namespace
    kind.apply(
        voucher("load", "UPGRADE-LOAD"),
        voucher("capped", "UPGRADE-CAPPED", maxRedemptions=1),
        voucher("secret", "", codeFrom=from_secret("upgrade-code")),
        redemption("first", "first", code="UPGRADE-CAPPED"),
        namespace=namespace,
    )
    for what in ("voucher/load", "voucher/capped"):
        kind.wait(what, "condition=Ready", namespace)
    kind.wait("redemption/first", "jsonpath={.status.state}=Redeemed", namespace)
    kind.apply(
        redemption("second", "second", code="UPGRADE-CAPPED"),
        redemption("waiting", "waiting", voucherRef={"name": "secret"}),
        namespace=namespace,
    )
    kind.wait("redemption/second", "jsonpath={.status.state}=Rejected", namespace)
    kind.wait("redemption/waiting", "condition=Reconciling", namespace)


def test_upgrade_under_load_loses_nothing(old: Release, server: Server, loads: Callable[[Release, str], Load]) -> None:
    kind, namespace = old.kind, old.namespace
    new = replace(old, chart=CHART, image=images.OPERATOR)
    _history(old)
    before = server.sql(LEDGER, old.database)
    with loads(old, "UPGRADE-LOAD") as load:
        load.await_more()
        run(kind, "Upgrade")
        new.install()
        new.await_ready()
        load.await_more(20)
    assert set(load.states) == {"Redeemed"}
    assert server.sql(LEDGER, old.database) == before

    kind.apply(secret("upgrade-code", code="UPGRADE-SECRET"), namespace=namespace)
    kind.wait("redemption/waiting", "jsonpath={.status.state}=Redeemed", namespace)
    kind.wait("voucher/load", f"jsonpath={{.status.timesRedeemed}}={load.finished}", namespace)
    assert {pod["spec"]["containers"][0]["image"] for pod in new.pods()} == {images.OPERATOR}
    assert new.restarts() == 0
    assert new.verify() == "the ledger is consistent"
    _go_back(new, server)
    new.uninstall()


def _go_back(release: Release, server: Server) -> None:
    """The previous version serves a ledger and CRDs that the newer one has migrated, and changes no row of it."""
    kind, namespace = release.kind, release.namespace
    before = server.sql(LEDGER, release.database)
    release.helm("rollback", release.name)
    release.await_ready()
    names = {pod["metadata"]["name"] for pod in release.pods()}
    assert {pod["spec"]["containers"][0]["image"] for pod in release.pods()} == {images.PREVIOUS}
    wait_until(lambda: release.leader() in names, "a leader of the previous version", timeout=60)
    assert server.sql(LEDGER, release.database) == before
    kind.apply(redemption("upgrade-load-back", "back", code="UPGRADE-LOAD"), namespace=namespace)
    kind.wait("redemption/upgrade-load-back", "jsonpath={.status.state}=Redeemed", namespace)
    assert server.sql(LEDGER, release.database) == before
    assert release.restarts() == 0
    assert release.verify() == "the ledger is consistent"

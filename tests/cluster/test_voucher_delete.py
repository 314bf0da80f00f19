"""A Voucher is deleted: its code is revoked, also after an outage of the operator, and redemptions stay."""

from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from testbed.cluster import Installation, install_rights
from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.conftest import Sovereign
from tests.cluster.ledger_reader import LedgerReader, wait_for_full_passes
from tests.cluster.resources import FAST, CustomObject, ResourceClient, ready, state, status, unique, until
from tests.conftest import Operators

REVOKED = (False, True)
GONE = "revoked the code of a deleted Voucher"


def row_state(ledger: LedgerReader, voucher: CustomObject) -> tuple[bool, bool]:
    """Return whether the code's row is active, and whether it is deleted."""
    _, active, _, _, deleted = ledger.promo(voucher.code)
    return active, deleted


def remove_finalizer(voucher: CustomObject) -> None:
    """Delete it while no operator looks, without the operator's finalizer."""
    voucher.patch({"metadata": {"finalizers": None}})
    voucher.delete()
    voucher.wait_gone()


def test_deleting_revokes_the_code_and_keeps_redemptions(sovereign: Sovereign) -> None:
    api, ledger = sovereign.api, sovereign.ledger
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    assert api.redeem(voucher.code, user="kept").result() == ("Redeemed", "Redeemed")
    voucher.delete()
    voucher.wait_gone()
    assert row_state(ledger, voucher) == REVOKED
    assert ledger.promo(voucher.code)[3] == 1
    assert ledger.balance("kept") == 10000
    assert ledger.row("SELECT count(*) FROM promo_redemptions WHERE code = %s", voucher.code) == (1,)
    voucher.wait_event("Revoked")
    assert api.redeem(voucher.code).result() == ("Rejected", "VoucherNotFound")


def test_recreated_voucher_gets_its_row_and_counter_back(sovereign: Sovereign) -> None:
    api = sovereign.api
    first = api.voucher("came-back", code="CAME-BACK", maxRedemptions=2)
    first.wait(ready("Issued"))
    assert api.redeem(first.code, user="came-back-1").result() == ("Redeemed", "Redeemed")
    first.delete()
    first.wait_gone()
    second = api.voucher("came-back", code="CAME-BACK", maxRedemptions=2)
    assert second.uid != first.uid
    second.wait(status(state="Active", timesRedeemed=1, remaining=1, creditGranted="10.000"))
    second.wait_event("Issued")
    assert api.redeem(second.code, user="came-back-1").result() == ("Rejected", "AlreadyRedeemed")
    assert api.redeem(second.code).result() == ("Redeemed", "Redeemed")
    second.wait(state("Exhausted"))
    assert sovereign.ledger.row("SELECT count(*) FROM promo_codes WHERE code = 'CAME-BACK'") == (1,)


def test_voucher_that_was_never_issued_is_deleted_at_once(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(credit={"amount": 1, "currency": "USD"})
    voucher.wait(ready("CurrencyMismatch", "False"))
    voucher.delete()
    voucher.wait_gone()
    assert "Revoked" not in [event["reason"] for event in voucher.events()]


def test_voucher_deleted_while_being_issued_leaves_no_code(sovereign: Sovereign) -> None:
    """At whichever moment: none has a code in the ledger once it is gone, though the operator is busy with it."""
    made = []
    for turn in range(24):
        voucher = sovereign.api.voucher(unique(f"short-lived-{turn}"))
        made.append(voucher)
        if turn % 3:
            until(lambda: "finalizers" in voucher.body()["metadata"], "finalizer")  # noqa: B023 - called at once
        if turn % 3 == 2:
            voucher.edit(description="just before the end")
        voucher.delete()
    for voucher in made:
        voucher.wait_gone()
    wait_for_full_passes(sovereign.api, sovereign.ledger, 1)
    uids = [voucher.uid for voucher in made]
    live = "SELECT count(*) FROM vouchers.terms WHERE owner_uid = ANY(%s) AND revoked_at IS NULL"
    assert sovereign.ledger.row(live, uids) == (0,)
    codes = [voucher.code for voucher in made]
    open_codes = "SELECT count(*) FROM promo_codes WHERE code = ANY(%s) AND deleted_at IS NULL"
    assert sovereign.ledger.row(open_codes, codes) == (0,)


def test_voucher_deleted_while_the_operator_is_down_is_revoked_later(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """The finalizer holds it until the operator is back."""
    operator = operators.start(env=FAST)
    voucher, other = api.voucher(), api.voucher()
    for made in (voucher, other):
        made.wait(ready("Issued"))
    operator.stop()
    voucher.delete()
    assert row_state(ledger, voucher) == (True, False)
    operators.start(env=FAST)
    voucher.wait_gone()
    assert row_state(ledger, voucher) == REVOKED
    assert row_state(ledger, other) == (True, False)


def test_orphan_from_an_outage_is_revoked_at_start(
    api: ResourceClient, ledger: LedgerReader, operators: Operators
) -> None:
    """The row is an orphan then, which a resync finds; a Voucher of the same name that came since is left alone."""
    operators.allow.append(GONE)
    operator = operators.start(env=FAST)
    orphan, replaced = api.voucher("orphan"), api.voucher("replaced")
    for made in (orphan, replaced):
        made.wait(ready("Issued"))
    operator.stop()
    for made in (orphan, replaced):
        remove_finalizer(made)
    successor = api.voucher("replaced", code=replaced.code)
    operators.start(env=FAST)
    until(lambda: row_state(ledger, orphan) == REVOKED, "revocation of the orphan")
    successor.wait(ready("Issued"))
    assert row_state(ledger, successor) == (True, False)


def test_orphan_is_revoked_by_the_next_resync(api: ResourceClient, ledger: LedgerReader, operators: Operators) -> None:
    """The next resync finds the orphan, without a restart."""
    operators.allow.append(GONE)
    operator = operators.start(env=FAST | {"VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"})
    voucher = api.voucher()
    voucher.wait(ready("Issued"))
    operator.sigstop()
    remove_finalizer(voucher)
    operator.sigcont()
    until(lambda: row_state(ledger, voucher) == REVOKED, "revocation of the orphan")


@pytest.fixture
def tenant(
    control_plane: ControlPlane, installation: Installation, admin: ApiClient
) -> tuple[ResourceClient, Installation]:
    """A second namespace that the operator serves, with the chart's rights.

    The namespace controller deletes the chart's Role together with the Vouchers, in no order: what takes the finalizers
    off is the chart's one ClusterRole.
    """
    name = control_plane.namespace(unique("tenant"))
    both = install_rights(control_plane, [*installation.namespaces, name])
    return ResourceClient(admin, name), both


@pytest.mark.long
def test_namespace_with_vouchers_can_be_deleted(
    tenant: tuple[ResourceClient, Installation],
    api: ResourceClient,
    ledger: LedgerReader,
    database18: Database,
    tmp_path: Path,
    control_plane: ControlPlane,
) -> None:
    """Its codes are revoked, and the other namespace is served as before, resync included."""
    operators = Operators(tenant[1], database18, tmp_path)
    operator = operators.start(env=FAST | {"VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"})
    vouchers = [tenant[0].voucher() for _ in range(5)]
    for voucher in vouchers:
        voucher.wait(ready("Issued"))
    assert tenant[0].redeem(vouchers[0].code).result() == ("Redeemed", "Redeemed")
    control_plane.kubectl("delete", "namespace", tenant[0].namespace, "--timeout=60s")
    assert [row_state(ledger, voucher) for voucher in vouchers] == [REVOKED] * 5
    other = api.voucher()
    other.wait(ready("Issued"))
    operator.sigstop()
    remove_finalizer(other)
    operator.sigcont()
    until(lambda: row_state(ledger, other) == REVOKED, "revocation of the orphan")
    operator.stop()
    assert operator.unexpected(["403 Forbidden", GONE]) == []

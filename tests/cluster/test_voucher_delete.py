"""A Voucher is deleted: its code is revoked, whoever was asleep meanwhile, and what was redeemed stays."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from testbed.cluster import Installation, install_rights
from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.conftest import Sovereign
from tests.cluster.resources import FAST, Books, Made, Shop, let_pass, ready, state, status, unique, until
from tests.conftest import Operators

REVOKED = (False, True)
GONE = "revoked the code of a Voucher that is gone"


def standing(books: Books, voucher: Made) -> tuple[bool, bool]:
    """Return whether the code's row is active, and whether it is deleted."""
    _, active, _, _, deleted = books.promo(voucher.code)
    return active, deleted


def forget(voucher: Made) -> None:
    """Delete it while no operator looks, without the operator's finalizer."""
    voucher.patch({"metadata": {"finalizers": None}})
    voucher.delete()
    voucher.wait_gone()


def test_deleting_revokes_the_code_and_takes_nothing_back(sovereign: Sovereign) -> None:
    shop, books = sovereign.shop, sovereign.books
    voucher = shop.voucher()
    voucher.wait(ready("Issued"))
    assert shop.redeem(voucher.code, user="kept").result() == ("Redeemed", "Redeemed")
    voucher.delete()
    voucher.wait_gone()
    assert standing(books, voucher) == REVOKED
    assert books.promo(voucher.code)[3] == 1
    assert books.balance("kept") == 10000
    assert books.row("SELECT count(*) FROM promo_redemptions WHERE code = %s", voucher.code) == (1,)
    voucher.wait_event("Revoked")
    assert shop.redeem(voucher.code).result() == ("Rejected", "VoucherNotFound")


def test_applying_it_again_brings_row_and_counter_back(sovereign: Sovereign) -> None:
    shop = sovereign.shop
    first = shop.voucher("came-back", code="CAME-BACK", maxRedemptions=2)
    first.wait(ready("Issued"))
    assert shop.redeem(first.code, user="came-back-1").result() == ("Redeemed", "Redeemed")
    first.delete()
    first.wait_gone()
    second = shop.voucher("came-back", code="CAME-BACK", maxRedemptions=2)
    assert second.uid != first.uid
    second.wait(status(state="Active", timesRedeemed=1, remaining=1, creditGranted="10.000"))
    second.wait_event("Issued")
    assert shop.redeem(second.code, user="came-back-1").result() == ("Rejected", "AlreadyRedeemed")
    assert shop.redeem(second.code).result() == ("Redeemed", "Redeemed")
    second.wait(state("Exhausted"))
    assert sovereign.books.row("SELECT count(*) FROM promo_codes WHERE code = 'CAME-BACK'") == (1,)


def test_voucher_that_was_never_issued_goes_at_once(sovereign: Sovereign) -> None:
    voucher = sovereign.shop.voucher(credit={"amount": 1, "currency": "USD"})
    voucher.wait(ready("CurrencyMismatch", "False"))
    voucher.delete()
    voucher.wait_gone()
    assert "Revoked" not in [event["reason"] for event in voucher.events()]


def test_deleted_while_it_is_being_issued(sovereign: Sovereign) -> None:
    """At whichever moment: none has a code in the ledger once it is gone, though the operator is busy with it."""
    made = []
    for turn in range(24):
        voucher = sovereign.shop.voucher(unique(f"short-lived-{turn}"))
        made.append(voucher)
        if turn % 3:
            until(lambda: "finalizers" in voucher.body()["metadata"], "finalizer")  # noqa: B023 - called at once
        if turn % 3 == 2:
            voucher.edit(description="just before the end")
        voucher.delete()
    for voucher in made:
        voucher.wait_gone()
    let_pass(sovereign.shop, sovereign.books, 1)
    uids = [voucher.uid for voucher in made]
    live = "SELECT count(*) FROM vouchers.terms WHERE owner_uid = ANY(%s) AND revoked_at IS NULL"
    assert sovereign.books.row(live, uids) == (0,)
    codes = [voucher.code for voucher in made]
    open_codes = "SELECT count(*) FROM promo_codes WHERE code = ANY(%s) AND deleted_at IS NULL"
    assert sovereign.books.row(open_codes, codes) == (0,)


def test_deleted_while_the_operator_was_down(shop: Shop, books: Books, operators: Operators) -> None:
    """The finalizer holds it until the operator is back."""
    operator = operators.start(env=FAST)
    voucher, other = shop.voucher(), shop.voucher()
    for made in (voucher, other):
        made.wait(ready("Issued"))
    operator.stop()
    voucher.delete()
    assert standing(books, voucher) == (True, False)
    operators.start(env=FAST)
    voucher.wait_gone()
    assert standing(books, voucher) == REVOKED
    assert standing(books, other) == (True, False)


def test_finalizer_removed_by_hand_while_the_operator_was_down(shop: Shop, books: Books, operators: Operators) -> None:
    """The row is an orphan then, which a resync finds; a Voucher of the same name that came since is left alone."""
    operators.allow.append(GONE)
    operator = operators.start(env=FAST)
    orphan, replaced = shop.voucher("orphan"), shop.voucher("replaced")
    for made in (orphan, replaced):
        made.wait(ready("Issued"))
    operator.stop()
    for made in (orphan, replaced):
        forget(made)
    successor = shop.voucher("replaced", code=replaced.code)
    operators.start(env=FAST)
    until(lambda: standing(books, orphan) == REVOKED, "revocation of the orphan")
    successor.wait(ready("Issued"))
    assert standing(books, successor) == (True, False)


def test_finalizer_removed_by_hand_while_the_operator_runs(shop: Shop, books: Books, operators: Operators) -> None:
    """The next resync finds the orphan, without a restart."""
    operators.allow.append(GONE)
    operator = operators.start(env=FAST | {"VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"})
    voucher = shop.voucher()
    voucher.wait(ready("Issued"))
    operator.sigstop()
    forget(voucher)
    operator.sigcont()
    until(lambda: standing(books, voucher) == REVOKED, "revocation of the orphan")


@pytest.fixture
def tenant(
    control_plane: ControlPlane, installation: Installation, admin: ApiClient
) -> Iterator[tuple[Shop, Installation]]:
    """A second namespace that the operator serves, and its rights, of which one outlives the namespace.

    The namespace controller deletes the chart's Role together with the Vouchers, in no order: without this right nobody
    could take the finalizers off any more.
    """
    name = control_plane.namespace(unique("tenant"))
    both = install_rights(control_plane, [*installation.namespaces, name])
    account = f"--serviceaccount={both.namespaces[0]}:voucher-operator"
    control_plane.kubectl("create", "clusterrole", name, "--verb=patch", "--resource=vouchers.billing.openova.io")
    control_plane.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
    yield Shop(admin, name), both
    control_plane.kubectl("delete", "clusterrolebinding,clusterrole", name)


def test_namespace_with_vouchers_can_be_deleted(
    tenant: tuple[Shop, Installation],
    shop: Shop,
    books: Books,
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
    assert [standing(books, voucher) for voucher in vouchers] == [REVOKED] * 5
    other = shop.voucher()
    other.wait(ready("Issued"))
    operator.sigstop()
    forget(other)
    operator.sigcont()
    until(lambda: standing(books, other) == REVOKED, "revocation of the orphan")
    operator.stop()
    assert operator.unexpected(["403 Forbidden", GONE]) == []

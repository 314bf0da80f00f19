"""A Voucher's row is edited outside Git: Git's fields are corrected with an event; the ledger's are shown."""

from typing import LiteralString

import pytest

from tests.cluster.conftest import Sovereign
from tests.cluster.resources import CustomObject, ResourceClient, ready, state, status, unique, until
from tests.ledger.go_service import GoService

METRIC = "voucher_operator_drift_corrected_total"
ROW = (10000, True, 5, 0, False)


def issued(api: ResourceClient) -> CustomObject:
    """Return a Voucher that is in the ledger."""
    voucher = api.voucher(maxRedemptions=5)
    voucher.wait(ready("Issued"))
    return voucher


@pytest.mark.parametrize(
    ("edit", "fields"),
    [
        ("UPDATE promo_codes SET credit_omr = 999 WHERE code = %s", "credit"),
        ("UPDATE promo_codes SET credit_minor = 1 WHERE code = %s", "credit"),
        ("UPDATE promo_codes SET max_redemptions = 0 WHERE code = %s", "maxRedemptions"),
        ("UPDATE promo_codes SET active = false WHERE code = %s", "active"),
        ("UPDATE promo_codes SET description = 'ours now' WHERE code = %s", "description"),
        ("UPDATE promo_codes SET deleted_at = now() WHERE code = %s", "deleted"),
        ("UPDATE promo_codes SET credit_omr = 1, active = false WHERE code = %s", "credit, active"),
        ("DELETE FROM promo_codes WHERE code = %s", "deleted"),
    ],
    ids=["credit", "minor units", "cap", "active", "description", "deleted_at", "two", "row"],
)
def test_edited_row_is_corrected(sovereign: Sovereign, edit: LiteralString, fields: str) -> None:
    voucher, ledger = issued(sovereign.api), sovereign.ledger
    before = sovereign.operator.metrics()[METRIC]
    ledger.rows(edit, voucher.code)
    event = voucher.wait_event("DriftCorrected")
    assert event["note"] == f"Changed outside Git and restored: {fields}."
    assert (event["type"], event["action"]) == ("Warning", "Correct")
    assert ledger.promo(voucher.code) == ROW
    assert ledger.row("SELECT description, credit_omr FROM promo_codes WHERE code = %s", voucher.code) == ("", 10)
    assert sovereign.operator.metrics()[METRIC] == before + 1
    voucher.wait(state("Active"))


async def test_go_service_cannot_revoke_or_change_a_voucher(sovereign: Sovereign) -> None:
    """Its admin page edits and revokes by the same statements as before; the operator restores what Git says."""
    voucher, ledger = issued(sovereign.api), sovereign.ledger
    async with GoService.connect(ledger.database.owner_url) as go:
        await go.revoke(voucher.code)
        until(lambda: ledger.promo(voucher.code) == ROW, "correction")
        await go.issue(voucher.code, 77, description="from the page", max_redemptions=1)
        until(lambda: ledger.promo(voucher.code) == ROW, "correction")


async def test_counters_follow_the_go_service(sovereign: Sovereign) -> None:
    """Its redemptions and its compensations, without anybody touching a resource; neither is drift."""
    voucher, ledger = issued(sovereign.api), sovereign.ledger
    async with GoService.connect(ledger.database.owner_url) as go:
        customers = [await go.customer(unique("go")) for _ in range(2)]
        for customer in customers:
            await go.redeem(customer, voucher.code)
        body = voucher.wait(status(timesRedeemed=2, remaining=3, creditGranted="20.000"))
        assert "lastRedemptionTime" in body["status"]
        await go.undo(customers[0], voucher.code)
        voucher.wait(status(timesRedeemed=1, remaining=4, creditGranted="10.000"))
    assert [event["reason"] for event in voucher.events()] == ["Issued"]


async def test_cap_holds_for_operator_and_go_service(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(maxRedemptions=2)
    voucher.wait(ready("Issued"))
    async with GoService.connect(sovereign.ledger.database.owner_url) as go:
        await go.redeem(await go.customer(unique("go")), voucher.code)
    assert sovereign.api.redeem(voucher.code).result() == ("Redeemed", "Redeemed")
    voucher.wait(state("Exhausted"))
    assert sovereign.api.redeem(voucher.code).result() == ("Rejected", "RedemptionLimitReached")


async def test_customer_of_the_go_service_cannot_redeem_again(sovereign: Sovereign) -> None:
    """In whichever of the two ways first."""
    voucher, user = issued(sovereign.api), unique("both")
    async with GoService.connect(sovereign.ledger.database.owner_url) as go:
        await go.redeem(await go.customer(user), voucher.code)
    assert sovereign.api.redeem(voucher.code, user=user).result() == ("Rejected", "AlreadyRedeemed")
    assert sovereign.ledger.balance(user) == 10000


def test_drift_correction_keeps_an_inactive_voucher_inactive(sovereign: Sovereign) -> None:
    """Somebody activates by hand what Git says is inactive."""
    voucher = sovereign.api.voucher(active=False)
    voucher.wait(state("Inactive"))
    sovereign.ledger.rows("UPDATE promo_codes SET active = true WHERE code = %s", voucher.code)
    voucher.wait_event("DriftCorrected")
    assert sovereign.ledger.promo(voucher.code)[1] is False
    voucher.wait(state("Inactive"))

"""A Voucher is edited, or time passes: ledger and status follow, and nothing is taken back."""

from datetime import datetime, timedelta

from tests.cluster.conftest import Sovereign
from tests.cluster.resources import CustomObject, condition, ready, state, status


def redeemed(sovereign: Sovereign, voucher: CustomObject, user: str | None = None) -> None:
    """Redeem the voucher once."""
    assert sovereign.api.redeem(voucher.code, user=user).result() == ("Redeemed", "Redeemed")


def in_a_moment(sovereign: Sovereign, seconds: float) -> str:
    """Return a time ahead, by the ledger's clock."""
    (now,) = sovereign.ledger.row("SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    return (now + timedelta(seconds=seconds)).isoformat()


def redeemable(body: dict[str, object]) -> tuple[str, str]:
    """Return the status and the reason of Redeemable."""
    said = condition(body, "Redeemable")
    return said["status"], said["reason"]


def test_credit_changes_later_redemptions_only(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher()
    voucher.wait(ready("Issued"))
    redeemed(sovereign, voucher, "credit-early")
    voucher.edit(credit={"amount": "12.345"})
    voucher.wait(status(credit="12.345 OMR"))
    redeemed(sovereign, voucher, "credit-late")
    voucher.wait(status(creditGranted="22.345"))
    assert (sovereign.ledger.balance("credit-early"), sovereign.ledger.balance("credit-late")) == (10000, 12345)


def test_description_reaches_the_ledger(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(description="before")
    voucher.wait(ready("Issued"))
    voucher.edit(description="حملة مسقط")
    voucher.wait(ready("Issued"))
    assert sovereign.ledger.row("SELECT description FROM promo_codes WHERE code = %s", voucher.code) == ("حملة مسقط",)


def test_voucher_can_be_deactivated_and_activated(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher()
    voucher.wait(state("Active"))
    voucher.edit(active=False)
    body = voucher.wait(state("Inactive"))
    assert ready("Issued")(body)
    assert redeemable(body) == ("False", "Inactive")
    assert sovereign.api.redeem(voucher.code).result() == ("Rejected", "VoucherInactive")
    voucher.edit(active=True)
    assert redeemable(voucher.wait(state("Active"))) == ("True", "Active")
    redeemed(sovereign, voucher)


def test_exhausted_voucher_is_redeemable_after_the_cap_is_raised(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(maxRedemptions=1)
    voucher.wait(state("Active"))
    redeemed(sovereign, voucher)
    body = voucher.wait(state("Exhausted"))
    assert ready("Issued")(body)
    assert redeemable(body) == ("False", "Exhausted")
    voucher.wait_event("Exhausted")
    assert sovereign.api.redeem(voucher.code).result() == ("Rejected", "RedemptionLimitReached")
    voucher.edit(maxRedemptions=2)
    voucher.wait(status(state="Active", remaining=1, redeemed="1/2"))
    redeemed(sovereign, voucher)
    voucher.edit(maxRedemptions=0)
    assert "remaining" not in voucher.wait(status(state="Active", redeemed="2"))["status"]


def test_cap_below_use_means_exhausted(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(maxRedemptions=3)
    voucher.wait(state("Active"))
    for user in ("below-1", "below-2"):
        redeemed(sovereign, voucher, user)
    voucher.edit(maxRedemptions=1)
    body = voucher.wait(status(state="Exhausted", timesRedeemed=2, remaining=0, redeemed="2/1"))
    assert ready("Issued")(body)
    assert [sovereign.ledger.balance(user) for user in ("below-1", "below-2")] == [10000, 10000]
    assert sovereign.ledger.promo(voucher.code) == (10000, True, 1, 2, False)


def test_window_opens_and_closes_without_an_edit(sovereign: Sovereign) -> None:
    """Without an edit: the resource's generation stays, and so do the rows."""
    opening = sovereign.api.voucher(validFrom=in_a_moment(sovereign, 4.0))
    closing = sovereign.api.voucher(validUntil=in_a_moment(sovereign, 4.0))
    assert redeemable(opening.wait(state("Scheduled"))) == ("False", "Scheduled")
    assert redeemable(closing.wait(state("Active"))) == ("True", "Active")
    assert redeemable(opening.wait(state("Active"))) == ("True", "Active")
    assert redeemable(closing.wait(state("Expired"))) == ("False", "Expired")
    assert [ready("Issued")(made.body()) for made in (opening, closing)] == [True, True]
    assert [made.body()["metadata"]["generation"] for made in (opening, closing)] == [1, 1]
    assert sovereign.api.redeem(closing.code).result() == ("Rejected", "VoucherExpired")
    redeemed(sovereign, opening)


def test_changed_window_applies_at_once(sovereign: Sovereign) -> None:
    voucher = sovereign.api.voucher(validUntil="2020-01-01T00:00:00Z")
    voucher.wait(state("Expired"))
    voucher.edit(validFrom="2998-01-01T00:00:00Z", validUntil="2999-01-01T00:00:00Z")
    voucher.wait(state("Scheduled"))
    voucher.edit(validFrom=None)
    voucher.wait(state("Active"))
    redeemed(sovereign, voucher)


def test_edit_writes_no_event(sovereign: Sovereign) -> None:
    """An edit is not drift, nor is it issued twice."""
    voucher = sovereign.api.voucher()
    voucher.wait_event("Issued")
    voucher.edit(description="new", maxRedemptions=9)
    voucher.wait(ready("Issued"))
    assert [event["reason"] for event in voucher.events()] == ["Issued"]

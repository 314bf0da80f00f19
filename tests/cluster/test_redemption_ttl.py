"""Finished Redemptions go after their time to live, by the ledger's clock; the ledger keeps what they did."""

import pytest

from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, CustomObject, ResourceClient, ready, state, until, waiting
from tests.conftest import Operators

OFTEN = FAST | {"VOUCHER_OPERATOR_RESYNC_INTERVAL": "0.5"}
"""TTLs are looked at at least as often as a resync is made."""


@pytest.fixture
def voucher(api: ResourceClient, operators: Operators) -> CustomObject:
    operators.start(env=OFTEN)
    made = api.voucher()
    made.wait(ready("Issued"))
    return made


def test_finished_redemptions_are_deleted_after_their_ttl(
    api: ResourceClient, ledger: LedgerReader, voucher: CustomObject
) -> None:
    """Refused ones as well; those without a TTL, with a long one, or without an answer stay."""
    granted = api.redeem(voucher.code, name="granted", user="granted", ttlSecondsAfterFinished=1)
    refused = api.redeem(voucher.code, name="refused", user="granted", ttlSecondsAfterFinished=0)
    kept = api.redeem(voucher.code, user="kept")
    long = api.redeem(voucher.code, user="long", ttlSecondsAfterFinished=3600)
    source = {"secretKeyRef": {"name": "never", "key": "code"}}
    unanswered = api.redeem(codeFrom=source, user="unanswered", ttlSecondsAfterFinished=0)
    granted.wait_gone()
    refused.wait_gone()
    assert [made.result() for made in (kept, long)] == [("Redeemed", "Redeemed")] * 2
    unanswered.wait(waiting("SecretNotFound"))
    assert ledger.rows("SELECT outcome FROM vouchers.redemption WHERE key LIKE %s", "%/granted") == [("redeemed",)]
    assert ledger.promo(voucher.code)[3] == 3
    again = api.redeem(voucher.code, name="granted", user="granted")
    assert again.result() == ("Redeemed", "Redeemed")
    assert (ledger.balance("granted"), ledger.entries("granted")) == (10000, 1)
    voucher.wait(state("Active"))


def test_ttl_counts_from_the_decision_in_the_ledger(
    api: ResourceClient, ledger: LedgerReader, voucher: CustomObject
) -> None:
    """One that is created again reads its first answer, and when that was: its time may be up already."""
    first = api.redeem(voucher.code, name="long-ago", user="long-ago")
    assert first.result() == ("Redeemed", "Redeemed")
    first.delete()
    first.wait_gone()
    ledger.rows(
        "UPDATE vouchers.redemption SET decided_at = decided_at - interval '1 day' WHERE user_id = %s", "long-ago"
    )
    again = api.redeem(voucher.code, name="long-ago", user="long-ago", ttlSecondsAfterFinished=3600)
    recent = api.redeem(voucher.code, user="recent", ttlSecondsAfterFinished=3600)
    again.wait_gone()
    assert recent.result() == ("Redeemed", "Redeemed")
    assert ledger.entries("long-ago") == 1


def test_field_selector_lists_only_redemptions_with_ttl(api: ResourceClient, voucher: CustomObject) -> None:
    """The field selector by which the operator asks, so that the others cost it nothing."""
    for ttl in (None, 0, 3600):
        api.redeem(voucher.code, user=f"ttl-{ttl}", name=f"ttl-{ttl}".lower(), ttlSecondsAfterFinished=ttl)
    until(lambda: len(api.listed("redemptions", "status.finished=true")) >= 2, "two that are finished")
    found = api.listed("redemptions", "status.finished=true,spec.ttlSecondsAfterFinished!=")
    assert {body["metadata"]["name"] for body in found} <= {"ttl-0", "ttl-3600"}
    until(
        lambda: (
            [body["metadata"]["name"] for body in api.listed("redemptions", "status.finished=true")]
            == ["ttl-3600", "ttl-none"]
        ),
        "end of the one whose time is up",
    )
    (only,) = api.listed("redemptions", "status.finished=true,spec.ttlSecondsAfterFinished!=")
    assert only["metadata"]["name"] == "ttl-3600"

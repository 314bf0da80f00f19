"""Orders that are refused, and orders asked for again: what a refusal leaves, and what a key is bound to."""

from dataclasses import replace

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import issue, redeem_request, rows, terms
from tests.ledger.purchase_helpers import (
    place_purchase,
    purchase_outcome,
    purchase_request,
    row_counts,
    with_redeem_changes,
)
from voucher_operator.ledger.api import Ledger
from voucher_operator.resources.errors import RequestRejectedError
from voucher_operator.resources.reasons import Reason

NOTHING = {
    "customers": 0,
    "orders": 0,
    "subscriptions": 0,
    "credit_ledger": 0,
    "promo_redemptions": 0,
    "vouchers.purchase": 0,
    "vouchers.outbox": 0,
}


async def test_order_that_cannot_be_paid_leaves_no_rows_and_the_code_unused(
    ledger18: Ledger, database18: Database
) -> None:
    """The failure that started it all: a voucher of 10, an order of 50, no Stripe."""
    await issue(database18, "TEN", 10, max_redemptions=1)
    request = purchase_request(50_000, "TEN", "ahmed", payable=False)
    result = await ledger18.purchase(request)
    assert (result.refusal, result.purchase, result.redeemed) == (
        Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED,
        None,
        None,
    )
    assert await row_counts(database18) == NOTHING
    assert await rows(database18, "SELECT times_redeemed, granted_minor, last_redeemed_at FROM promo_codes") == [
        (0, 0, None)
    ]
    replayed = await ledger18.purchase(request)
    assert (replayed.refusal, replayed.replayed, replayed.decided_at) == (result.refusal, True, result.decided_at)
    # Deleted and created again, when Stripe is there: it is decided again.
    anew = with_redeem_changes(replace(request, payable=True), uid="another")
    assert purchase_outcome(await ledger18.purchase(anew)) == "pending"
    assert await rows(database18, "SELECT times_redeemed FROM promo_codes") == [(1,)]
    assert await rows(database18, "SELECT outcome, uid FROM vouchers.redemption") == [("redeemed", "another")]


async def test_refusal_of_an_order_without_code_is_bound_to_the_uid(ledger18: Ledger, database18: Database) -> None:
    request = purchase_request(50_000, "", "ahmed", payable=False)
    assert purchase_outcome(await ledger18.purchase(request)) == "PaymentProcessorNotConfigured"
    assert await row_counts(database18) == NOTHING
    assert purchase_outcome(await ledger18.purchase(replace(request, payable=True))) == "PaymentProcessorNotConfigured"
    purchase = await place_purchase(ledger18, with_redeem_changes(replace(request, payable=True), uid="another"))
    assert (purchase.uid, purchase.due_minor) == ("another", 50_000)


async def test_order_that_cannot_be_paid_uses_nothing_of_its_batch(ledger18: Ledger, database18: Database) -> None:
    """It is decided first; if its rows stayed, it would use the only use of the code."""
    await issue(database18, "TEN", 10, max_redemptions=1)
    first = purchase_request(50_000, "TEN", "ahmed", payable=False)
    second = purchase_request(9_000, "TEN", "sara")
    third = purchase_request(9_000, "TEN", "omar")
    results = await ledger18._purchase([first, second, third])
    assert [purchase_outcome(result) for result in results if not isinstance(result, Exception)] == [
        "PaymentProcessorNotConfigured",
        "completed",
        "RedemptionLimitReached",
    ]
    assert await rows(database18, "SELECT user_id FROM customers") == [("sara",)]


async def test_refused_code_refuses_the_order(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms("OVER"))
    await rows(database18, "UPDATE vouchers.terms SET valid_until = now() - interval '1 second'")
    await issue(database18, "OFF", active=False)
    await issue(database18, "FULL", max_redemptions=1)
    await ledger18.redeem(redeem_request("FULL"))
    before = await row_counts(database18)
    for code, refusal in (
        ("NONE", "VoucherNotFound"),
        ("OFF", "VoucherInactive"),
        ("OVER", "VoucherExpired"),
        ("FULL", "RedemptionLimitReached"),
    ):
        request = purchase_request(50_000, code, "ahmed")
        result = await ledger18.purchase(request)
        assert (purchase_outcome(result), result.purchase, result.redeemed) == (refusal, None, None)
        replayed = await ledger18.purchase(request)
        assert (purchase_outcome(replayed), replayed.replayed) == (refusal, True)
    assert await row_counts(database18) == before


async def test_code_redeemed_before_refuses_the_order_but_balance_pays(ledger18: Ledger, database18: Database) -> None:
    await issue(database18)
    await ledger18.redeem(redeem_request(user="ahmed"))
    assert purchase_outcome(await ledger18.purchase(purchase_request(9_000, "CODE", "ahmed"))) == "AlreadyRedeemed"
    assert purchase_outcome(await ledger18.purchase(purchase_request(9_000, "", "ahmed"))) == "completed"


async def test_provisional_refusal_of_an_order_is_not_kept(ledger18: Ledger, database18: Database) -> None:
    request = purchase_request(9_000, redeem=redeem_request("LATE", "ahmed", provisional=True))
    assert purchase_outcome(await ledger18.purchase(request)) == "VoucherNotFound"
    assert await rows(database18, "SELECT 1 FROM vouchers.redemption") == []
    await issue(database18, "LATE")
    assert purchase_outcome(await ledger18.purchase(request)) == "completed"


async def test_repeated_order_returns_the_first_purchase(ledger18: Ledger, database18: Database) -> None:
    await issue(database18)
    for request in (purchase_request(9_000, "CODE", "ahmed"), purchase_request(50_000, "", "sara")):
        first = await ledger18.purchase(request)
        second = await ledger18.purchase(request)
        # A Redemption deleted and created again from Git has another uid.
        third = await ledger18.purchase(with_redeem_changes(request, uid="another"))
        assert (first.replayed, second.replayed, third.replayed) == (False, True, True)
        assert first.purchase == second.purchase == third.purchase
    assert (await row_counts(database18))["orders"] == 2


async def test_key_is_bound_to_its_first_request(ledger18: Ledger, database18: Database) -> None:
    """Whatever a key did before, with or without a code: it does nothing else."""
    await issue(database18)
    await issue(database18, "MORE")
    coded, plain, redeemed = (
        purchase_request(9_000, "CODE", "ahmed"),
        purchase_request(50_000, "", "sara"),
        redeem_request(user="omar"),
    )
    await place_purchase(ledger18, coded)
    await place_purchase(ledger18, plain)
    await ledger18.redeem(redeemed)
    before = await row_counts(database18)
    for used in (coded.redeem, plain.redeem, redeemed):
        other = replace(used, request_hash="other", code="MORE", uid="another")
        assert purchase_outcome(await ledger18.purchase(purchase_request(9_000, redeem=other))) == "IdempotencyConflict"
        assert (
            purchase_outcome(await ledger18.purchase(purchase_request(0, redeem=replace(other, code=""))))
            == "IdempotencyConflict"
        )
        assert (await ledger18.redeem(other)).refusal is Reason.IDEMPOTENCY_CONFLICT
        unpayable = purchase_request(50_000, redeem=other, payable=False)
        assert purchase_outcome(await ledger18.purchase(unpayable)) == "IdempotencyConflict"
    assert await row_counts(database18) == before


async def test_order_that_cannot_be_stored_fails_alone(ledger18: Ledger, database18: Database) -> None:
    good = purchase_request(0, "", "ahmed")
    with pytest.raises(RequestRejectedError):
        await ledger18.purchase(replace(good, plan_id="a\0b"))
    with pytest.raises(RequestRejectedError):
        await ledger18.purchase(replace(good, total_minor=2**62))
    assert await row_counts(database18) == NOTHING
    assert purchase_outcome(await ledger18.purchase(good)) == "completed"

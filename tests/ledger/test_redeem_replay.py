"""Idempotency: a grant is bound to its key, a refusal to key and uid."""

from dataclasses import replace

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import (
    ON_POSTGRESQL_16,
    in_one_batch,
    issue,
    open_ledger,
    redeem_outcome,
    redeem_request,
    rows,
)
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import Outcome, RedeemResult

pytestmark = ON_POSTGRESQL_16


def body(result: RedeemResult) -> RedeemResult:
    return replace(result, replayed=False)


async def test_repeated_request_returns_the_first_grant(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    first = await ledger.redeem(asked)
    again = await ledger.redeem(asked)
    recreated = await ledger.redeem(replace(asked, uid="another"))
    assert not first.replayed
    assert again.replayed
    assert first == body(again) == body(recreated)
    assert await ledger.balance("ahmed") == 10_000


async def test_repeated_request_returns_the_grant_after_the_voucher_changed(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request()
    first = await ledger.redeem(asked)
    await rows(database, "UPDATE promo_codes SET active = false, deleted_at = now(), credit_omr = 99")
    assert body(await ledger.redeem(asked)) == first


async def test_another_request_under_a_granted_key_is_a_conflict(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    first = await ledger.redeem(asked)
    other = await ledger.redeem(replace(asked, request_hash="other", user_id="sara", uid="other"))
    assert (redeem_outcome(other), other.code, other.credit_minor, other.replayed) == (
        "IdempotencyConflict",
        None,
        0,
        False,
    )
    assert await ledger.balance("sara") == 0
    assert body(await ledger.redeem(asked)) == first


async def test_repeated_request_of_the_same_uid_returns_the_refusal(ledger: Ledger, database: Database) -> None:
    asked = redeem_request()
    first = await ledger.redeem(asked)
    await issue(database)
    again = await ledger.redeem(asked)
    assert (redeem_outcome(again), again.replayed) == ("VoucherNotFound", True)
    assert body(again) == first


async def test_refused_request_with_a_new_uid_is_decided_anew(ledger: Ledger, database: Database) -> None:
    await issue(database, active=False)
    asked = redeem_request(user="ahmed")
    assert redeem_outcome(await ledger.redeem(asked)) == "VoucherInactive"
    await rows(database, "UPDATE promo_codes SET active = true")
    anew = replace(asked, uid="anew", request_hash="anew", user_id="sara", tenant_id="t")
    granted = await ledger.redeem(anew)
    assert (redeem_outcome(granted), granted.replayed) == ("redeemed", False)
    assert await rows(
        database,
        "SELECT r.uid, r.request_hash, r.outcome, r.reason, r.user_id, c.user_id, r.credit_minor, r.decided_at "
        "FROM vouchers.redemption r JOIN customers c ON c.id = r.customer_id",
    ) == [("anew", "anew", "redeemed", None, "sara", "sara", 10_000, granted.decided_at)]
    assert redeem_outcome(await ledger.redeem(asked)) == "IdempotencyConflict"
    assert body(await ledger.redeem(anew)) == granted


async def test_refused_request_with_a_new_uid_may_be_refused_again(ledger: Ledger, database: Database) -> None:
    asked = redeem_request()
    assert redeem_outcome(await ledger.redeem(asked)) == "VoucherNotFound"
    await issue(database, active=False)
    anew = replace(asked, uid="anew")
    assert redeem_outcome(await ledger.redeem(anew)) == "VoucherInactive"
    assert (await ledger.redeem(anew)).replayed
    assert await rows(database, "SELECT uid, reason FROM vouchers.redemption") == [("anew", "VoucherInactive")]


async def test_provisional_refusal_keeps_the_older_refusal(ledger: Ledger, database: Database) -> None:
    asked = redeem_request()
    await ledger.redeem(asked)
    assert redeem_outcome(await ledger.redeem(replace(asked, uid="anew", provisional=True))) == "VoucherNotFound"
    assert await rows(database, "SELECT uid FROM vouchers.redemption") == [(asked.uid,)]


async def test_repeated_request_returns_undone(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    async with GoService.connect(database.owner_url) as go:
        assert await go.undo(await go.customer("ahmed"), asked.code)
    again = await ledger.redeem(asked)
    assert (again.outcome, again.replayed) == (Outcome.UNDONE, True)
    assert redeem_outcome(await ledger.redeem(replace(asked, request_hash="other"))) == "IdempotencyConflict"


async def test_known_and_new_keys_in_one_batch_are_separated(ledger: Ledger, database: Database) -> None:
    await issue(database, max_redemptions=2)
    old, conflicting, refused = redeem_request(), redeem_request(), redeem_request("NONE")
    await in_one_batch(ledger, [old, refused])
    batch = [conflicting, old, replace(refused, uid="anew", code="CODE"), redeem_request()]
    answers = await in_one_batch(ledger, batch)
    assert [(redeem_outcome(a), a.replayed) for a in answers] == [
        ("redeemed", False),
        ("redeemed", True),
        ("RedemptionLimitReached", False),
        ("RedemptionLimitReached", False),
    ]
    assert [a.key for a in answers] == [request.key for request in batch]


async def test_two_replicas_return_the_same_result(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request()
    async with open_ledger(database.runtime_url) as other:
        first = await ledger.redeem(asked)
        assert body(await other.redeem(asked)) == first

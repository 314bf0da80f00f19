"""Wrong codes of one customer are limited, in the ledger, so that no replica and no client lets anybody guess codes."""

import asyncio
from datetime import timedelta
from typing import Final

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import in_one_batch, issue, open_ledger, redeem_outcome, redeem_request, rows
from tests.ledger.purchase_helpers import purchase_request
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import AttemptLimit, RedeemResult
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

LIMIT: Final = AttemptLimit(3, 600.0)
LIMITED: Final = "TooManyAttempts"
UNKNOWN: Final = "VoucherNotFound"


async def guess(ledger: Ledger, *codes: str, user: str = "mallory", provisional: bool = False) -> list[RedeemResult]:
    return [await ledger.redeem(redeem_request(code, user, provisional=provisional)) for code in codes]


async def outcomes(ledger: Ledger, *codes: str, user: str = "mallory", provisional: bool = False) -> list[str]:
    return [redeem_outcome(result) for result in await guess(ledger, *codes, user=user, provisional=provisional)]


@pytest.mark.parametrize("provisional", [False, True])
async def test_right_code_is_refused_after_too_many_wrong_ones_until_the_time_has_passed(
    database: Database, provisional: bool
) -> None:
    """Also when the wrong ones were not recorded as refused, because their Vouchers could still be issued."""
    await issue(database, "RIGHT")
    async with open_ledger(database.runtime_url, attempts=LIMIT) as ledger:
        first, *_ = await guess(ledger, "WRONG-1", "WRONG-2", "WRONG-3", provisional=provisional)
        assert await outcomes(ledger, "WRONG-4", provisional=provisional) == [LIMITED]
        request = redeem_request("RIGHT", "mallory")
        limited = await ledger.redeem(request)
        assert redeem_outcome(limited) == LIMITED
        assert limited.retry_at == first.decided_at + timedelta(seconds=LIMIT.seconds)
        assert await ledger.redemption_of(request.key, request.request_hash, request.uid) is None
        assert await rows(database, "SELECT times_redeemed FROM promo_codes") == [(0,)]
        await rows(database, "UPDATE vouchers.attempt SET at = at - interval '601 s' WHERE at = %s", first.decided_at)
        assert redeem_outcome(await ledger.redeem(request)) == "redeemed"


async def test_other_customers_are_not_limited(database18: Database) -> None:
    await issue(database18, "RIGHT")
    async with open_ledger(database18.runtime_url, attempts=LIMIT) as ledger:
        await guess(ledger, *(f"WRONG-{n}" for n in range(4)))
        assert await outcomes(ledger, "WRONG", "RIGHT", user="huda") == [UNKNOWN, "redeemed"]


async def test_wrong_codes_in_one_namespace_do_not_limit_the_customer_in_another(database: Database) -> None:
    """Nor over HTTP. Whoever may create Redemptions names the customer, and must not use up the attempts elsewhere."""
    await issue(database, "RIGHT")
    keys = [Key("attack/one"), Key("attack/two"), Key("attack/three"), Key("attack/four"), Key("shop/kestrel")]
    async with open_ledger(database.runtime_url, attempts=LIMIT) as ledger:
        for key in keys[:3]:
            await ledger.redeem(redeem_request("WRONG", "huda", key=key))
        found = [redeem_outcome(await ledger.redeem(redeem_request("RIGHT", "huda", key=key))) for key in keys[3:]]
        assert found == [LIMITED, "redeemed"]
        over_http = redeem_request("WRONG", "huda", key=Key.of_http("four"))
        assert redeem_outcome(await ledger.redeem(over_http)) == UNKNOWN


async def test_wrong_codes_of_one_batch_count_in_their_namespace(database: Database) -> None:
    await issue(database, "RIGHT")
    async with open_ledger(database.runtime_url) as ledger:
        batch = [redeem_request(f"WRONG-{n}", "huda", key=Key(f"attack/{n}")) for n in range(LIMIT.attempts + 1)]
        batch.append(redeem_request("RIGHT", "huda", key=Key("shop/kestrel")))
        results = await in_one_batch(ledger, batch, LIMIT)
        assert [redeem_outcome(result) for result in results] == [UNKNOWN] * LIMIT.attempts + [LIMITED, "redeemed"]


async def test_wrong_codes_of_one_batch_count_for_for_the_requests_after_them(database: Database) -> None:
    await issue(database, "RIGHT")
    async with open_ledger(database.runtime_url) as ledger:
        codes = ("WRONG-1", "RIGHT", "WRONG-2", "WRONG-3", "WRONG-4", "RIGHT-2")
        batch = [redeem_request(code, "mallory") for code in codes] + [redeem_request("RIGHT", "huda")]
        results = await in_one_batch(ledger, batch, LIMIT)
        expected = [UNKNOWN, "redeemed", UNKNOWN, UNKNOWN, LIMITED, LIMITED, "redeemed"]
        assert [redeem_outcome(result) for result in results] == expected
        assert results[4].retry_at == results[4].decided_at + timedelta(seconds=LIMIT.seconds)


async def test_request_that_is_tried_again_counts_once_and_does_not_limit_itself(database18: Database) -> None:
    """As a Redemption does whose Voucher may still be issued."""
    waiting = [redeem_request(f"LATE-{n}", "huda", provisional=True) for n in range(LIMIT.attempts)]
    async with open_ledger(database18.runtime_url, attempts=LIMIT) as ledger:
        for _ in range(3):
            assert [redeem_outcome(await ledger.redeem(one)) for one in waiting] == [UNKNOWN] * 3
        await issue(database18, "LATE-1")
        assert [redeem_outcome(await ledger.redeem(one)) for one in waiting] == [UNKNOWN, "redeemed", UNKNOWN]


async def test_refusals_of_codes_that_exist_and_blank_codes_do_not_count(database18: Database) -> None:
    await issue(database18, "OFF", active=False)
    await issue(database18, "USED")
    async with open_ledger(database18.runtime_url, attempts=LIMIT) as ledger:
        await guess(ledger, *["OFF", "USED", " "] * 5, user="huda")
        assert await outcomes(ledger, "WRONG", user="huda") == [UNKNOWN]
    assert await rows(database18, "SELECT user_id FROM vouchers.attempt") == [("huda",)]


async def test_without_a_limit_nothing_is_counted(database18: Database) -> None:
    async with open_ledger(database18.runtime_url) as ledger:
        assert await outcomes(ledger, *(f"WRONG-{n}" for n in range(20))) == [UNKNOWN] * 20
    assert await rows(database18, "SELECT * FROM vouchers.attempt") == []


async def test_two_replicas_count_together(database: Database) -> None:
    """Each may miss what the other is writing at that moment, so each may answer the limit once."""
    async with (
        open_ledger(database.runtime_url, attempts=LIMIT) as one,
        open_ledger(database.runtime_url, attempts=LIMIT) as two,
    ):
        guesses = [(one, two)[n % 2].redeem(redeem_request(f"WRONG-{n}", "mallory")) for n in range(60)]
        found = [redeem_outcome(result) for result in await asyncio.gather(*guesses)]
        assert LIMIT.attempts <= found.count(UNKNOWN) <= 2 * LIMIT.attempts
        assert await outcomes(one, "WRONG") == await outcomes(two, "WRONG") == [LIMITED]


async def test_order_of_a_limited_customer_is_not_placed(database18: Database) -> None:
    await issue(database18, "RIGHT", 100)
    async with open_ledger(database18.runtime_url, attempts=LIMIT) as ledger:
        first, *_ = await guess(ledger, "WRONG-1", "WRONG-2", "WRONG-3")
        asked = purchase_request(9_000, "RIGHT", user="mallory")
        limited = await ledger.purchase(asked)
        assert (limited.refusal, limited.purchase) == (Reason.TOO_MANY_ATTEMPTS, None)
        assert limited.retry_at == first.decided_at + timedelta(seconds=LIMIT.seconds)
        await rows(database18, "UPDATE vouchers.attempt SET at = at - interval '601 s'")
        assert (await ledger.purchase(asked)).purchase is not None


async def test_wrong_codes_of_a_day_ago_are_purged(database18: Database) -> None:
    async with open_ledger(database18.runtime_url, attempts=LIMIT) as ledger:
        await guess(ledger, "WRONG-1", "WRONG-2")
        one = "(SELECT min(key) FROM vouchers.attempt)"
        await rows(database18, f"UPDATE vouchers.attempt SET at = at - interval '25 h' WHERE key = {one}")
        await ledger.purge()
    assert len(await rows(database18, "SELECT key FROM vouchers.attempt")) == 1

"""One code in several spellings: its uses count together, whichever row counts them.

See also: `test_interleavings` for spellings that appear between two statements; `test_redeem` and `test_put` for which
row a code means.
"""

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, issue, redeem_outcome, redeem_request, rows, terms
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutOutcome, VoucherState

pytestmark = ON_POSTGRESQL_16


async def test_cap_of_an_adopted_code_counts_uses_in_its_old_spelling(ledger: Ledger, database: Database) -> None:
    await issue(database, "abc", max_redemptions=2)
    voucher = terms("ABC", max_redemptions=2, credit_minor=10_000)
    await ledger.put(voucher)
    assert [redeem_outcome(await ledger.redeem(redeem_request("ABC"))) for _ in range(2)] == ["redeemed"] * 2
    async with GoService.connect(database.owner_url) as go:
        await go.issue("ABC", 10, max_redemptions=2)
    assert redeem_outcome(await ledger.redeem(redeem_request("ABC"))) == "RedemptionLimitReached"
    result = await ledger.put(voucher)
    assert (result.outcome, "code" in result.corrected) == (PutOutcome.DRIFT_CORRECTED, True)
    counters = result.counters
    assert (counters.times_redeemed, counters.granted_minor, counters.state) == (2, 20_000, VoucherState.EXHAUSTED)
    assert counters.last_redeemed_at is not None
    assert redeem_outcome(await ledger.redeem(redeem_request("abc"))) == "RedemptionLimitReached"
    await ledger.put(terms("ABC", max_redemptions=3, credit_minor=10_000, generation=2))
    assert [redeem_outcome(await ledger.redeem(redeem_request("ABC"))) for _ in range(2)] == [
        "redeemed",
        "RedemptionLimitReached",
    ]
    assert await rows(database, 'SELECT code, times_redeemed FROM promo_codes ORDER BY code COLLATE "C"') == [
        ("ABC", 1),
        ("abc", 2),
    ]


async def test_uses_by_the_go_service_count_in_every_spelling(ledger: Ledger, database: Database) -> None:
    await issue(database, "abc", max_redemptions=2)
    await issue(database, "ABC", max_redemptions=2)
    async with GoService.connect(database.owner_url) as go:
        await go.redeem(await go.customer("gina"), "abc")
    assert redeem_outcome(await ledger.redeem(redeem_request("ABC", "gina"))) == "AlreadyRedeemed"
    assert [redeem_outcome(await ledger.redeem(redeem_request("ABC"))) for _ in range(2)] == [
        "redeemed",
        "RedemptionLimitReached",
    ]


async def test_verify_reports_a_cap_exceeded_by_a_second_spelling(database: Database) -> None:
    await issue(database, "abc", max_redemptions=1)
    await issue(database, "ABC", max_redemptions=1)
    async with GoService.connect(database.owner_url) as go:
        await go.redeem(await go.customer("gina"), "abc")
        await go.redeem(await go.customer("olga"), "ABC")
    found = {(v.invariant, v.subject, v.detail) for v in await verify(database.admin_url) if v.invariant == "cap"}
    detail = "times_redeemed is 2 in all spellings, the cap is 1, and it was set when 0 were redeemed"
    assert found == {("cap", "code 'ABC'", detail)}


async def test_cap_set_below_the_uses_of_all_spellings_is_sound(ledger: Ledger, database: Database) -> None:
    await issue(database, "abc", max_redemptions=3)
    for _ in range(2):
        await ledger.redeem(redeem_request("abc"))
    await issue(database, "ABC", max_redemptions=1)
    assert redeem_outcome(await ledger.redeem(redeem_request("ABC"))) == "RedemptionLimitReached"

"""Taking a redemption back: all of it or nothing, once, and side by side with the Go service's own way."""

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import issue, redeem_outcome, redeem_request, rows, terms
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import UndoResult
from voucher_operator.resources.errors import CreditSpentError
from voucher_operator.resources.keys import Key


async def test_undo_reverses_a_grant_completely(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms(max_redemptions=1))
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    assert await ledger.undo(asked.key) == UndoResult(True, 25_500)
    assert await rows(database, "SELECT amount_omr, amount_minor, reason FROM credit_ledger ORDER BY amount_minor") == [
        (-25, -25_500, "promo:CODE"),
        (25, 25_500, "promo:CODE"),
    ]
    assert await rows(database, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(0, 0)]
    assert await rows(database, "SELECT 1 FROM promo_redemptions") == []
    assert await rows(
        database,
        "SELECT r.outcome, r.undone_at IS NOT NULL, e.amount_minor "
        "FROM vouchers.redemption r JOIN credit_ledger e ON e.id = r.reversal_entry_id",
    ) == [("undone", True, -25_500)]
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "redeemed"


async def test_undo_of_an_undone_or_refused_request_changes_nothing(ledger: Ledger, database: Database) -> None:
    await issue(database, active=False)
    refused = redeem_request()
    await ledger.redeem(refused)
    assert await ledger.undo(refused.key) == UndoResult(False)
    assert await ledger.undo(Key("nobody/knows")) == UndoResult(False)
    await rows(database, "UPDATE promo_codes SET active = true")
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    assert (await ledger.undo(asked.key)).undone
    assert await ledger.undo(asked.key) == UndoResult(False)
    assert await ledger.balance("ahmed") == 0


async def test_undo_leaves_other_redemptions(ledger: Ledger, database: Database) -> None:
    await issue(database)
    first, other = redeem_request(user="ahmed"), redeem_request(user="sara")
    await ledger.redeem(first)
    await ledger.redeem(other)
    await ledger.undo(first.key)
    assert (await ledger.balance("ahmed"), await ledger.balance("sara")) == (0, 10_000)
    assert await rows(database, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(1, 10_000)]


async def test_counter_never_falls_below_zero(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request()
    await ledger.redeem(asked)
    await rows(database, "UPDATE promo_codes SET times_redeemed = 0")
    await ledger.undo(asked.key)
    assert await rows(database, "SELECT times_redeemed FROM promo_codes") == [(0,)]


async def test_spent_credit_is_not_undone(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    async with GoService.connect(database.owner_url) as go:
        await go.spend(await go.customer("ahmed"), 4)
        with pytest.raises(CreditSpentError):
            await ledger.undo(asked.key)
        assert await ledger.balance("ahmed") == 6_000
        assert redeem_outcome(await ledger.redeem(asked)) == "redeemed"
        await issue(database, "MORE", 4)
        await ledger.redeem(redeem_request("MORE", "ahmed"))
    assert (await ledger.undo(asked.key)).undone
    assert await ledger.balance("ahmed") == 0


async def test_undo_after_go_undo_changes_nothing(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    async with GoService.connect(database.owner_url) as go:
        customer = await go.customer("ahmed")
        assert await go.undo(customer, "CODE")
        await go.redeem(customer, "CODE")
    assert await ledger.undo(asked.key) == UndoResult(False)
    assert await ledger.balance("ahmed") == 10_000
    assert await rows(database, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(1, 10_000)]


async def test_go_undo_after_undo_changes_nothing(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    await ledger.undo(asked.key)
    async with GoService.connect(database.owner_url) as go:
        assert not await go.undo(await go.customer("ahmed"), "CODE")
    assert await ledger.balance("ahmed") == 0


async def test_undo_of_a_grant_of_zero_frees_the_code(ledger: Ledger, database: Database) -> None:
    await issue(database, credit_omr=0)
    asked = redeem_request(user="ahmed")
    await ledger.redeem(asked)
    assert await ledger.undo(asked.key) == UndoResult(True, 0)
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "redeemed"

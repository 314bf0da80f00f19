"""A redemption that is undone with its order: all of it or nothing, once, and side by side with the Go service's undo.

See also: test_purchase_compensate.py has the order's part; test_go_undo.py the Go service's own undo.
"""

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, issue, redeem_outcome, redeem_request, rows, terms
from tests.ledger.purchase_helpers import place_purchase, purchase_request, undone
from voucher_operator.ledger.api import Ledger
from voucher_operator.resources.reasons import Reason

COUNTED = "SELECT times_redeemed, granted_minor FROM promo_codes"

pytestmark = ON_POSTGRESQL_16


async def test_undone_redemption_has_its_reversal_and_leaves_the_code_free(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms(max_redemptions=1))
    assert not (await undone(ledger, redeem_request(user="ahmed"))).redeemed
    entries = "SELECT amount_omr, amount_minor FROM credit_ledger WHERE reason = 'promo:CODE' ORDER BY amount_minor"
    assert await rows(database, entries) == [(-25, -25_500), (25, 25_500)]
    assert await rows(database, COUNTED) == [(0, 0)]
    assert await rows(database, "SELECT 1 FROM promo_redemptions") == []
    assert await rows(
        database,
        "SELECT r.outcome, r.undone_at IS NOT NULL, e.amount_minor "
        "FROM vouchers.redemption r JOIN credit_ledger e ON e.id = r.reversal_entry_id",
    ) == [("undone", True, -25_500)]
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "redeemed"


async def test_undo_leaves_the_redemptions_of_others(ledger: Ledger, database: Database) -> None:
    await issue(database)
    await ledger.redeem(redeem_request(user="sara"))
    await undone(ledger, redeem_request(user="ahmed"))
    assert (await ledger.balance("ahmed"), await ledger.balance("sara")) == (0, 10_000)
    assert await rows(database, COUNTED) == [(1, 10_000)]


async def test_counter_never_falls_below_zero(ledger: Ledger, database: Database) -> None:
    await issue(database)
    placed = await place_purchase(ledger, purchase_request(50_000, "CODE", "ahmed"))
    await rows(database, "UPDATE promo_codes SET times_redeemed = 0")
    await ledger.compensate(placed.key, Reason.ABANDONED)
    assert await rows(database, "SELECT times_redeemed FROM promo_codes") == [(0,)]


async def test_undo_leaves_what_was_redeemed_anew_after_the_go_services_undo(
    ledger: Ledger, database: Database
) -> None:
    await issue(database)
    placed = await place_purchase(ledger, purchase_request(50_000, "CODE", "ahmed"))
    async with GoService.connect(database.owner_url) as go:
        customer = await go.customer("ahmed")
        assert await go.undo(customer, "CODE")
        await go.redeem(customer, "CODE")
    await ledger.compensate(placed.key, Reason.ABANDONED)
    assert await ledger.balance("ahmed") == 10_000
    assert await rows(database, COUNTED) == [(1, 10_000)]


async def test_go_service_finds_nothing_to_undo_afterwards(ledger: Ledger, database: Database) -> None:
    await issue(database)
    await undone(ledger, redeem_request(user="ahmed"))
    async with GoService.connect(database.owner_url) as go:
        assert not await go.undo(await go.customer("ahmed"), "CODE")
    assert await ledger.balance("ahmed") == 0


async def test_grant_of_nothing_is_undone(ledger: Ledger, database: Database) -> None:
    await issue(database, credit_omr=0)
    await undone(ledger, redeem_request(user="ahmed"))
    assert redeem_outcome(await ledger.redeem(redeem_request(user="ahmed"))) == "redeemed"

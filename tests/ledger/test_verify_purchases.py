"""Every invariant of buying: sound purchases pass, and each way to break one is found and named."""

from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import rows
from tests.ledger.purchase_breaks import BREAKS, DISPUTE, ENDED, INBOX, ON_ITS_WAY, PAYMENT
from tests.ledger.purchase_rows import PlacedPurchase, place
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.purchase.types import PurchaseState
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import Violation


async def shop(database: Database) -> dict[str, PlacedPurchase]:
    """A purchase in each state; the ledger is sound."""
    return {state.value: await place(database, state, user=state) for state in PurchaseState}


async def test_consistent_purchases_have_no_violations(database: Database) -> None:
    placed = await shop(database)
    await place(database, user="nothing held", held=0, due=50_000)
    await place(database, PurchaseState.COMPLETED, user="all held", held=10_500, due=0)
    await place(database, PurchaseState.COMPLETED, user="for nothing", credit=0, held=0, due=0)
    await rows(database, "UPDATE vouchers.outbox SET published_at = now(), at = now() - interval '1 day'")
    for outcome in ("no_change", "unknown", "foreign", "applied"):
        await rows(database, INBOX.replace("OUTCOME", outcome).format(STATE=placed["completed"]))
    refunded = PAYMENT.replace("REFUNDED", "39500, true").replace("pi_1", "pi_2")
    await rows(database, DISPUTE.replace("IS", "won").split("; ")[0].format(STATE=placed["completed"]))
    await rows(database, refunded.format(STATE=placed["refunded"]))
    assert await verify(database.runtime_url) == []


async def test_purchases_within_their_time_limits_are_no_violation(database18: Database) -> None:
    """A day is for the look after the end, a month for money that is on its way, an hour for what is to be ended."""
    placed = await shop(database18)
    for sql in (ENDED.replace("HOURS", "23"), ENDED.replace("HOURS", "719") + ON_ITS_WAY):
        for statement_ in sql.split("; "):
            await rows(database18, statement_.format(**placed))
        assert await verify(database18.runtime_url) == []
    await rows(database18, "UPDATE vouchers.purchase SET look_at = now(), settled_at = now() - interval '1 hour'")
    assert await verify(database18.runtime_url) == []


async def test_each_break_of_a_purchase_is_reported(database18: Database) -> None:
    """Each way in a transaction that is rolled back, so that all have one ledger."""
    placed = await shop(database18)
    async with await AsyncConnection.connect(database18.admin_url) as admin:
        for case in BREAKS:
            await admin.execute(case.sql.format(**placed).encode())
            cursor = await admin.execute(statement(f"verify_{case.invariant}"))
            found = [(row[2], row[3]) for row in await cursor.fetchall()]
            key = placed[case.state].key if case.state else None
            assert (key, case.detail.format(**placed)) in found, case
            await admin.rollback()
            cursor = await admin.execute(statement(f"verify_{case.invariant}"))
            assert await cursor.fetchall() == [], case


async def test_violation_has_subject_and_detail(database18: Database) -> None:
    placed = (await shop(database18))["awaiting_payment"]
    await rows(database18, "DELETE FROM credit_ledger WHERE order_id = %s", placed.order)
    assert await verify(database18.runtime_url) == [
        Violation(
            "holds",
            f"redemption {placed.key}, customer {placed.customer}",
            "is awaiting_payment and holds 0 minor units in 0 entries instead of 10500 in 1",
        )
    ]


async def test_overspend_by_the_go_service_is_reported_as_balance_only(database18: Database) -> None:
    """Its overspend is reported, and the operator's own order, hold and event are no violation."""
    placed = await place(database18)
    async with GoService.connect(database18.owner_url) as go:
        await go.spend(await go.customer(placed.user), 1)
    assert await verify(database18.runtime_url) == [
        Violation("balance", f"customer {placed.customer}", "the balance is -1000 minor units")
    ]

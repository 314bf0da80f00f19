"""What a person has settled is not claimed again, and what they collected too much is to be paid back."""

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.payment_events import DUE, HELD, dispute, first, mark_settled, outstanding, partly
from tests.ledger.purchase_rows import PlacedPurchase, order_state, place
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Received


async def spend(database: Database, placed: PlacedPurchase, whole_units: int) -> None:
    """Have the customer spend credit in the Go service's shop."""
    async with GoService.connect(database.owner_url) as go:
        await go.spend(await go.customer(placed.user), whole_units)


async def details(database: Database) -> list[str]:
    return [one.detail for one in await verify(database.runtime_url)]


async def lines(ledger: Ledger, database: Database, placed: PlacedPurchase) -> list[str]:
    """What `verify` lists, without the names; the gauge counts the same."""
    found = [
        line.replace(f" of payment pi_{placed.order} (session {placed.session})", "")
        for line in await details(database)
    ]
    assert sum((await ledger.unsettled_payments()).values()) == len(found)
    return found


def collect(minor: int, state: str) -> str:
    return f"{minor} minor units are outstanding, and the order is {state}: collect them or write them off"


def pay_back(minor: int, state: str) -> str:
    return (
        f"{minor} minor units were settled and are no longer outstanding, and the order is {state}: pay back what of "
        "them was collected"
    )


async def failed_refund(ledger: Ledger, database: Database, spent: int) -> PlacedPurchase:
    """A purchase whose full refund has failed after so much of its credit was spent, in whole units."""
    placed = await place(database)
    await ledger.receive(first(placed))
    await ledger.receive(partly(placed, DUE, 1))
    await spend(database, placed, spent)
    assert await ledger.receive(partly(placed, 0, 2)) is Received.APPLIED
    return placed


async def test_lost_dispute_after_a_settled_failed_refund_claims_only_what_was_lost(
    ledger: Ledger, database: Database
) -> None:
    placed = await failed_refund(ledger, database, 10)
    assert len(await details(database)) == 2
    await mark_settled(database)
    assert await details(database) == []
    assert await ledger.receive(dispute(placed, "lost", 9)) is Received.APPLIED
    # The credit that is left, 500, was taken for the order.
    assert await outstanding(database, placed) == (5_000, 15_000)
    assert await lines(ledger, database, placed) == [collect(5_000, "charged_back")]
    await mark_settled(database)
    assert await ledger.receive(dispute(placed, "won", 10)) is Received.APPLIED
    assert await lines(ledger, database, placed) == [pay_back(5_000, "completed")]
    await mark_settled(database)
    assert await details(database) == []


async def test_dispute_won_after_its_loss_was_collected_is_to_be_paid_back(
    ledger18: Ledger, database18: Database
) -> None:
    placed = await place(database18, credit=12_000)
    await ledger18.receive(first(placed))
    await ledger18.receive(dispute(placed, "lost", 9))
    assert await lines(ledger18, database18, placed) == [collect(3_500, "charged_back")]
    await mark_settled(database18)
    assert await ledger18.receive(dispute(placed, "won", 10)) is Received.APPLIED
    assert await order_state(database18, placed) == ("completed", "completed", 1_500)
    assert await lines(ledger18, database18, placed) == [pay_back(3_500, "completed")]
    await mark_settled(database18)
    assert await details(database18) == []


async def test_refund_after_the_outstanding_amount_was_collected_is_to_be_paid_back(
    ledger18: Ledger, database18: Database
) -> None:
    placed = await failed_refund(ledger18, database18, 6)
    await mark_settled(database18)
    assert await ledger18.receive(partly(placed, DUE, 3)) is Received.APPLIED
    assert await order_state(database18, placed) == ("refunded", "refunded", HELD - 6_000)
    assert await lines(ledger18, database18, placed) == [pay_back(6_000, "refunded")]
    await mark_settled(database18)
    assert await details(database18) == []


async def test_second_refund_that_fails_is_listed_with_its_own_amount(ledger18: Ledger, database18: Database) -> None:
    """Of two refunds that add up one fails, and is settled, and then the other one."""
    placed = await place(database18)
    await ledger18.receive(first(placed))
    await ledger18.receive(partly(placed, DUE, 1))
    said = (
        f"payment pi_{placed.order} of session {placed.session} was refunded in full, and a refund has failed since: of"
    )
    await ledger18.receive(partly(placed, 20_000, 2))
    assert await lines(ledger18, database18, placed) == [
        f"{said} 39500 minor units 20000 are refunded; give 19500 back in another way"
    ]
    await mark_settled(database18)
    assert await lines(ledger18, database18, placed) == []
    await ledger18.receive(partly(placed, 0, 3))
    assert await lines(ledger18, database18, placed) == [
        f"{said} 39500 minor units 0 are refunded; give 20000 back in another way"
    ]
    await mark_settled(database18)
    # A full refund that succeeds ends the mark: when it fails in turn, all of it is to be given back.
    await ledger18.receive(partly(placed, DUE, 4))
    await ledger18.receive(partly(placed, 0, 5))
    assert await lines(ledger18, database18, placed) == [
        f"{said} 39500 minor units 0 are refunded; give 39500 back in another way"
    ]
    await mark_settled(database18)

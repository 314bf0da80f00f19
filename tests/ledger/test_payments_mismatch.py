"""Mismatched payments: another amount, a second checkout, a purchase that has ended. Kept, reported and settled."""

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import rows
from tests.ledger.purchase_helpers import add_credit
from tests.ledger.purchase_rows import entries, mark_mismatches_settled, order_state, place, violated
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PaymentEffect, PurchaseState, Received

PENDING, AWAITING, CANCELLED, ROLLED_BACK = (
    PurchaseState.PENDING,
    PurchaseState.AWAITING_PAYMENT,
    PurchaseState.CANCELLED,
    PurchaseState.ROLLED_BACK,
)
PAID, EXPIRED, GIVEN_BACK = PaymentEffect.PAID, PaymentEffect.EXPIRED, PaymentEffect.REFUNDED
HELD = 10_500


async def test_payment_of_another_amount_is_a_mismatch(ledger18: Ledger, database18: Database) -> None:
    for state in (PENDING, AWAITING, CANCELLED):
        for n, amount in enumerate((0, 39_490, 39_510)):
            placed = await place(database18, state, user=f"{state}-{n}")
            before = await order_state(database18, placed)
            assert await ledger18.receive(placed.event(amount_minor=amount)) is Received.MISMATCH
            assert await order_state(database18, placed) == before
    assert len(await violated(database18)) == 9
    await mark_mismatches_settled(database18)


async def test_payment_without_amount_is_applied(ledger18: Ledger, database18: Database) -> None:
    assert await ledger18.receive((await place(database18)).event(amount_minor=None)) is Received.APPLIED


async def test_second_checkout_of_an_order_is_a_mismatch(ledger18: Ledger, database18: Database) -> None:
    """Its money is for a human, before and after the first one's; that it ends is nothing to the order."""
    placed = await place(database18)
    second = {"session_id": "cs_second"}
    assert await ledger18.receive(placed.event(EXPIRED, **second)) is Received.NO_CHANGE
    assert await ledger18.receive(placed.event(PAID, **second)) is Received.MISMATCH
    assert await ledger18.receive(placed.event()) is Received.APPLIED
    assert await violated(database18) == [("webhook_events", f"redemption {placed.key}, customer {placed.customer}")]
    assert await ledger18.receive(placed.event(GIVEN_BACK, **second)) is Received.NO_CHANGE
    assert await order_state(database18, placed) == ("completed", "completed", 0)


async def test_payment_after_cancellation_holds_the_credit_again(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, credit=11_000)
    await ledger18.receive(placed.event(EXPIRED))
    assert await ledger18.receive(placed.event()) is Received.APPLIED
    assert await order_state(database18, placed) == ("completed", "completed", 500)
    assert [minor for _, minor, _ in await entries(database18, placed)] == [-HELD, HELD, -HELD]
    assert await rows(
        database18,
        "SELECT p.release_entry_id, e.amount_minor "
        "FROM vouchers.purchase p JOIN credit_ledger e ON e.id = p.hold_entry_id "
        "WHERE e.created_at = (SELECT max(created_at) FROM credit_ledger)",
    ) == [(None, -HELD)]
    assert await ledger18.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await order_state(database18, placed) == ("refunded", "refunded", 11_000)


async def test_payment_after_cancellation_with_spent_credit_is_a_mismatch(
    ledger18: Ledger, database18: Database
) -> None:
    placed = await place(database18)
    await ledger18.receive(placed.event(EXPIRED))
    async with GoService.connect(database18.owner_url) as go:
        await go.spend(await go.customer(placed.user), 1)
    assert await ledger18.receive(placed.event()) is Received.MISMATCH
    assert await order_state(database18, placed) == ("cancelled", "cancelled", 9_500)
    assert await violated(database18) == [("webhook_events", f"redemption {placed.key}, customer {placed.customer}")]
    # The human refunds it, and that settles it.
    assert await ledger18.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await order_state(database18, placed) == ("refunded", "refunded", 9_500)
    assert await ledger18.receive(placed.event()) is Received.NO_CHANGE


async def test_payment_after_cancellation_without_credit_completes_despite_debt(
    ledger18: Ledger, database18: Database
) -> None:
    """A debt elsewhere is nothing to an order that a card pays alone."""
    placed = await place(database18, CANCELLED, credit=0, held=0, due=50_000)
    await add_credit(database18, placed.user, -1_000)
    assert await ledger18.receive(placed.event()) is Received.APPLIED
    assert await order_state(database18, placed) == ("completed", "completed", -1_000)
    assert await entries(database18, placed) == []
    await add_credit(database18, placed.user, 1_000)


async def test_payment_after_rollback_is_a_mismatch(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, ROLLED_BACK)
    assert await ledger18.receive(placed.event()) is Received.MISMATCH
    assert await violated(database18) == [("webhook_events", f"redemption {placed.key}, customer {placed.customer}")]
    assert await ledger18.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await violated(database18) == []
    # And when the refund comes first.
    other = await place(database18, ROLLED_BACK, user="other")
    assert await ledger18.receive(other.event(GIVEN_BACK)) is Received.APPLIED
    assert await ledger18.receive(other.event()) is Received.NO_CHANGE
    for one in (placed, other):
        assert await order_state(database18, one) == ("rolled_back", "failed", HELD)

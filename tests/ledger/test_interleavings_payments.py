"""Every order of the statements of two sessions that receive events of one payment, or use its customer's credit.

The end is the same in each order: what Stripe said last decides, the credit adds up, and one event order.placed is
written. See also: `interleaving` steps the sessions; test_interleavings.py has codes and orders.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Literal

import psycopg
import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import open_ledger, redeem_request, rows
from tests.ledger.interleaving import Operation, Run, SteppedConnection, explore, open_sessions
from tests.ledger.payment_events import DUE, dispute, first, mark_settled, outstanding, partly
from tests.ledger.purchase_helpers import purchase_request
from tests.ledger.purchase_rows import PlacedPurchase, entries, order_state, place
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.payment.payments import receive
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.batch import purchase_batch
from voucher_operator.ledger.purchase.types import PaymentEffect, PaymentEvent, PurchaseState
from voucher_operator.resources.reasons import Reason

Name = Literal["pay", "expire", "refund", "refund_fails", "lose", "win", "compensate", "go_spend", "buy"]
EVENTS: dict[Name, Callable[[PlacedPurchase], PaymentEvent]] = {
    "pay": first,
    "expire": lambda placed: first(placed, PaymentEffect.EXPIRED),
    "refund": lambda placed: partly(placed, DUE, 1),
    "refund_fails": lambda placed: partly(placed, 0, 2),
    "lose": lambda placed: dispute(placed, "lost", 3),
    "win": lambda placed: dispute(placed, "won", 4),
}
PENDING, AWAITING, COMPLETED, CANCELLED, ROLLED_BACK, REFUNDED, CHARGED_BACK = PurchaseState

# State before, two operations, and the states in which they may end.
PAIRS: list[tuple[PurchaseState, Name, Name, set[PurchaseState]]] = [
    (PENDING, "pay", "compensate", {COMPLETED, ROLLED_BACK}),
    (PENDING, "refund", "compensate", {REFUNDED, ROLLED_BACK}),
    (PENDING, "lose", "compensate", {CANCELLED, ROLLED_BACK}),
    (AWAITING, "pay", "refund", {REFUNDED}),
    (AWAITING, "pay", "lose", {CHARGED_BACK, CANCELLED}),
    (AWAITING, "expire", "lose", {CANCELLED}),
    (COMPLETED, "refund", "refund_fails", {COMPLETED}),
    (COMPLETED, "refund", "lose", {REFUNDED, CHARGED_BACK}),
    (COMPLETED, "lose", "win", {COMPLETED}),
    (COMPLETED, "lose", "go_spend", {CHARGED_BACK}),
    (COMPLETED, "lose", "buy", {CHARGED_BACK}),
    (REFUNDED, "refund_fails", "go_spend", {COMPLETED}),
    (REFUNDED, "refund_fails", "buy", {COMPLETED}),
    (REFUNDED, "refund_fails", "refund_fails", {COMPLETED}),
    (CHARGED_BACK, "win", "go_spend", {COMPLETED}),
]


async def _buy(session: SteppedConnection, placed: PlacedPurchase) -> None:
    request = purchase_request(9_000, redeem=redeem_request("", placed.user), any_tenant=True)
    await purchase_batch(session, [request])  # type: ignore[arg-type]


def operation(name: Name, placed: PlacedPurchase) -> Operation:
    if name in EVENTS:
        event = EVENTS[name](placed)
        return lambda session: receive(session, event, "")  # type: ignore[arg-type]
    if name == "compensate":
        return lambda session: purchases.compensate(session, placed.key, Reason.ABANDONED)  # type: ignore[arg-type]
    if name == "buy":
        return lambda session: _buy(session, placed)
    return lambda session: GoService(session).spend(placed.customer, 6)  # type: ignore[arg-type]


async def given(database: Database, state: PurchaseState, user: str) -> PlacedPurchase:
    """Place a purchase with credit beside it, in a state that its events have led to."""
    start = COMPLETED if state in (REFUNDED, CHARGED_BACK) else state
    placed = await place(database, start, credit=12_000, user=user)
    before: dict[PurchaseState, Name] = {REFUNDED: "refund", CHARGED_BACK: "lose"}
    async with open_ledger(database.runtime_url) as ledger:
        if state in before:
            await ledger.receive(EVENTS[before[state]](placed))
    assert (await order_state(database, placed))[0] == state
    return placed


@pytest.mark.parametrize(("state", "one", "two", "ends"), PAIRS, ids=[f"{p[0]}-{p[1]}-{p[2]}" for p in PAIRS])
async def test_credit_adds_up_in_every_order_of_two_operations(
    database18: Database, state: PurchaseState, one: Name, two: Name, ends: set[PurchaseState]
) -> None:
    users: list[PlacedPurchase] = []
    async with AsyncExitStack() as stack:
        sessions = await stack.enter_async_context(open_sessions(database18))

        async def once(schedule: Sequence[int]) -> Run:
            placed = await given(database18, state, f"user-{len(users)}")
            users.append(placed)
            used = [
                (sessions.go_services if name == "go_spend" else sessions.replicas)[n]
                for n, name in enumerate((one, two))
            ]
            return await sessions.scheduler.run(used, [operation(one, placed), operation(two, placed)], schedule)

        async for run in explore(once, preemptions=1):
            assert [answer for answer in run.answers if isinstance(answer, psycopg.Error)] == [], run
            await check(database18, users[-1], ends)
    assert len(users) > 1
    await mark_settled(database18)
    allowed = {"balance"} if two == "go_spend" else {"webhook_events"} if state is PENDING else set()
    assert [v for v in await verify(database18.admin_url, statement_limit=60) if v.invariant not in allowed] == []


async def check(database: Database, placed: PlacedPurchase, ends: set[PurchaseState]) -> None:
    """The purchase has ended as it may, and what was taken and what is outstanding add up."""
    state, _, _ = await order_state(database, placed)
    assert state in ends
    spent = -sum(minor for _, minor, _ in await entries(database, placed))
    lost, rest = await outstanding(database, placed)
    held = 10_500 if state in (COMPLETED, CHARGED_BACK) else 0
    assert spent + rest == held + lost
    count = "SELECT count(*) FROM vouchers.outbox WHERE type = 'order.placed' AND data ->> 'id' = %s"
    ((number,),) = await rows(database, count, placed.order)
    assert number == 1 or (number == 0 and state not in (COMPLETED, CHARGED_BACK))

"""Two replicas buy with one key: whichever statement of the one runs between which two of the other, they agree.

See also: test_purchase_concurrent.py, where nobody decides the order.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import product

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, rows
from tests.ledger.purchase_helpers import purchase_outcome, purchase_request, row_counts, with_redeem_changes
from tests.ledger.stepping import Connection, Session, stepped
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.batch import purchase_batch
from voucher_operator.ledger.purchase.types import PurchaseRequest, PurchaseResult
from voucher_operator.ledger.redemption.redeem import redeem_batch
from voucher_operator.ledger.types import RedeemResult
from voucher_operator.resources.reasons import Reason

Work = Callable[[Connection], Awaitable[str]]

STEPS = (0, 1, 2, 4, 5, 6, 7, 8, 9)
"""Statements that have run: an attempt has six, and the one that records a refusal up to five."""
REFUSED = Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED.value


def buying(request: PurchaseRequest) -> Work:
    async def place(conn: Connection) -> str:
        (result,) = await purchase_batch(conn, [request])
        return (
            purchase_outcome(result)
            if isinstance(result, PurchaseResult)
            else f"{type(result).__name__}: {result.message}"
        )

    return place


def buying_together(requests: list[PurchaseRequest]) -> Work:
    async def place(conn: Connection) -> str:
        results = await purchase_batch(conn, requests)
        return " ".join(purchase_outcome(one) for one in results if isinstance(one, PurchaseResult))

    return place


def redeeming(request: PurchaseRequest) -> Work:
    async def redeem(conn: Connection) -> str:
        (result,) = await redeem_batch(conn, [request.redeem])
        return (
            redeem_outcome(result) if isinstance(result, RedeemResult) else f"{type(result).__name__}: {result.message}"
        )

    return redeem


async def interleaved(first: Session, second: Session, works: tuple[Work, Work], steps: tuple[int, int]) -> list[str]:
    """Run so many statements of the first, so many of the second, then all of the first, then all of the second."""
    sessions = (first, second)
    for session, work in zip(sessions, works, strict=True):
        session.start(work)
    for session, count in zip(sessions, steps, strict=True):
        for _ in range(count):
            await session.step()
    for session in sessions:
        await session.release()
    return [await session.result() for session in sessions]


def pair(kind: str, n: int) -> tuple[PurchaseRequest, PurchaseRequest]:
    """Return what two replicas ask with one key: 10.000 of credit, a price of 20.000, and at most one has Stripe."""
    request = purchase_request(20_000, "" if kind == "balance" else "CODE", f"{kind}-{n}", payable=False)
    others = {
        "one has stripe": (request, replace(request, payable=True)),
        "other has stripe": (replace(request, payable=True), request),
        "created anew": (request, with_redeem_changes(request, uid=f"other-{n}")),
    }
    return others.get(kind, (request, request))


@pytest.mark.parametrize("kind", ["code", "balance", "one has stripe", "other has stripe", "created anew"])
async def test_two_replicas_give_one_answer_in_every_order_of_statements(
    ledger: Ledger, database: Database, kind: str
) -> None:
    await issue(database, "CODE", 10)
    possible = {REFUSED, "pending"} if "stripe" in kind else {REFUSED}
    async with stepped(database) as first, stepped(database) as second:
        for n, steps in enumerate(product(STEPS, STEPS)):
            one, two = pair(kind, n)
            seen = await interleaved(first, second, (buying(one), buying(two)), steps)
            assert len(set(seen)) == 1, (steps, seen)
            assert set(seen) <= possible, (steps, seen)
            assert purchase_outcome(await ledger.purchase(two)) == seen[1], steps
    placed = await rows(database, "SELECT count(*)::int FROM vouchers.purchase")
    assert await rows(database, "SELECT times_redeemed FROM promo_codes") == placed


@pytest.mark.usefixtures("ledger")
async def test_two_replicas_with_one_batch_wait_for_each_other_without_deadlock(database: Database) -> None:
    """The batch is tried again with a refusal; what holds that key elsewhere is waited for before customers are."""
    await issue(database, "CODE", 10)
    async with stepped(database) as first, stepped(database) as second:
        for n, steps in enumerate(product(STEPS, STEPS)):
            both = [purchase_request(20_000, "CODE", f"user-{n}", payable=False), purchase_request(9_000, "", "ahmed")]
            work = buying_together(both)
            seen = await interleaved(first, second, (work, work), steps)
            assert seen == [f"{REFUSED} pending"] * 2, steps


async def test_key_redeemed_without_the_order_is_a_conflict(ledger: Ledger, database: Database) -> None:
    """The Redemption was created anew without its order; one replica still has the old one."""
    await issue(database, "CODE", 10)
    seen = Counter[tuple[str, ...]]()
    async with stepped(database) as first, stepped(database) as second:
        for n, steps in enumerate(product(STEPS, range(3))):
            order = purchase_request(20_000, "CODE", f"user-{n}", payable=False)
            anew = with_redeem_changes(order, uid=f"other-{n}", request_hash=f"anew-{n}")
            seen[tuple(await interleaved(first, second, (buying(order), redeeming(anew)), steps))] += 1
            assert redeem_outcome(await ledger.redeem(anew.redeem)) == "redeemed"
    assert set(seen) == {(REFUSED, "redeemed"), ("IdempotencyConflict", "redeemed")}


async def test_concurrent_unpayable_orders_of_one_key_leave_no_rows(ledger18: Ledger, database18: Database) -> None:
    await issue(database18, "CODE", 10)
    seen = Counter[str]()
    async with open_ledger(database18.runtime_url) as other:
        for n in range(100):
            request = purchase_request(20_000, "CODE", f"user-{n}", payable=False)
            seen.update(
                purchase_outcome(one) for one in await asyncio.gather(*(d.purchase(request) for d in (ledger18, other)))
            )
    assert seen == {REFUSED: 200}
    assert set((await row_counts(database18)).values()) == {0}

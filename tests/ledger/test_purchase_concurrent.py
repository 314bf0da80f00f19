"""Concurrent orders: the same credit is never spent twice, also beside other spenders."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import holding, issue, open_ledger, rows
from tests.ledger.purchase_helpers import add_credit, purchase_outcome, purchase_request
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase import batch as purchase_batch
from voucher_operator.ledger.purchase.types import PurchaseResult
from voucher_operator.ledger.redemption.redeem import held


async def test_credit_is_spent_once_by_sixty_concurrent_orders(ledger18: Ledger, database18: Database) -> None:
    """Sixty orders of two customers through three operators: the credit pays for seven each, the card for the rest."""
    for user in ("ahmed", "sara"):
        await add_credit(database18, user, 70_500)
    requests = [purchase_request(10_000, "", user) for _ in range(30) for user in ("ahmed", "sara")]
    async with open_ledger(database18.runtime_url) as second, open_ledger(database18.runtime_url) as third:
        ledgers = itertools.cycle((ledger18, second, third))
        results = await asyncio.gather(*(next(ledgers).purchase(request) for request in requests))
    spent = Counter[int]()
    for result in results:
        assert result.purchase is not None
        spent[result.purchase.held_minor] += 1
    assert spent == {10_000: 14, 500: 2, 0: 44}
    assert [await ledger18.balance(user) for user in ("ahmed", "sara")] == [0, 0]


async def test_same_key_through_many_operators_is_placed_once(ledger18: Ledger, database18: Database) -> None:
    await issue(database18, max_redemptions=1)
    for request in (
        purchase_request(50_000, "CODE", "ahmed"),
        purchase_request(9_000, "", "sara", payable=False),
        purchase_request(0, "", "omar"),
    ):
        async with open_ledger(database18.runtime_url) as second, open_ledger(database18.runtime_url) as third:
            results = await asyncio.gather(
                *(one_ledger.purchase(request) for one_ledger in (ledger18, second, third) * 3)
            )
        assert len({purchase_outcome(result) for result in results}) == 1, results
        assert [result.replayed for result in results].count(False) == 1
    assert await rows(database18, "SELECT count(*) FROM orders") == [(2,)]
    assert await rows(database18, "SELECT times_redeemed FROM promo_codes") == [(1,)]


async def test_cap_is_exact_for_orders_and_redemptions_together(ledger18: Ledger, database18: Database) -> None:
    """Both ways lock the code; those whom nobody can let pay take nothing from the others."""
    await issue(database18, max_redemptions=40)
    async with open_ledger(database18.runtime_url) as other:
        ledgers = itertools.cycle((ledger18, other))
        buyers = [purchase_request(9_000 if n % 2 else 50_000, "CODE", payable=n % 2 == 1) for n in range(60)]
        redeemers = [purchase_request(0, "CODE").redeem for _ in range(60)]
        bought, redeemed = await asyncio.gather(
            asyncio.gather(*(next(ledgers).purchase(request) for request in buyers)),
            asyncio.gather(*(next(ledgers).redeem(request) for request in redeemers)),
        )
    seen = Counter(purchase_outcome(result) for result in bought)
    assert set(seen) <= {"completed", "PaymentProcessorNotConfigured", "RedemptionLimitReached"}
    granted = sum(answer.refusal is None for answer in redeemed)
    assert seen["completed"] + granted == 40
    assert await rows(database18, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(40, 400_000)]


@pytest.mark.parametrize("able", [0, 1])
async def test_orders_that_cannot_be_paid_are_refused_in_few_transactions(
    ledger18: Ledger, database18: Database, monkeypatch: pytest.MonkeyPatch, able: int
) -> None:
    """What one of them cannot use comes free for the next: they are refused together, not in a transaction each."""
    attempts: list[int] = []
    attempt = purchase_batch._attempt

    def counted(conn: Any, requests: Sequence[Any], *others: Any) -> Any:
        attempts.append(len(requests))
        return attempt(conn, requests, *others)

    monkeypatch.setattr(purchase_batch, "_attempt", counted)
    await issue(database18, max_redemptions=1)
    buyers = [purchase_request(50_000, "CODE", payable=False) for _ in range(60)]
    buyers += [purchase_request(9_000, "CODE", payable=False) for _ in range(able)]
    seen = Counter(
        purchase_outcome(result) for result in await asyncio.gather(*(ledger18.purchase(one) for one in buyers))
    )
    assert seen == Counter(["PaymentProcessorNotConfigured"] * 60 + ["completed"] * able)
    assert len(attempts) <= 4, "one that came first, and all the others: twice each"
    assert await rows(database18, "SELECT times_redeemed FROM promo_codes") == [(able,)]


async def test_orders_beside_the_go_service_never_overspend(database18: Database) -> None:
    """It does not lock: it may spend more than there is, but ours never do, and `verify` names who is in debt."""
    for user in ("ahmed", "sara"):
        await add_credit(database18, user, 100_000)

    async def go_spends(user: str) -> None:
        async with GoService.connect(database18.owner_url) as go:
            customer = await go.customer(user)
            for _ in range(10):
                if await go.balance(customer) >= 9:
                    await go.spend(customer, 9)

    async with open_ledger(database18.runtime_url) as ledger:
        results = await asyncio.gather(
            *(ledger.purchase(purchase_request(7_000, "", "ahmed")) for _ in range(20)),
            *(go_spends(user) for user in ("ahmed", "ahmed", "sara")),
        )
        ours = sum(r.purchase.held_minor for r in results if isinstance(r, PurchaseResult) and r.purchase)
        theirs = (await rows(database18, "SELECT count(*)::int FROM orders WHERE amount_omr = 9"))[0][0]
        left = sum([await ledger.balance(user) for user in ("ahmed", "sara")])
        assert left == 200_000 - ours - 9_000 * theirs
        negative = await rows(
            database18, "SELECT 1 FROM credit_ledger GROUP BY customer_id HAVING sum(amount_minor) < 0"
        )
        assert [v.invariant for v in await verify(database18.admin_url)] == ["balance"] * len(negative)


async def test_spend_before_the_customer_lock_is_seen(ledger18: Ledger, database18: Database) -> None:
    """The balance is read by a statement that begins after the lock is held."""
    customer = await add_credit(database18, "ahmed", 10_000)
    async with holding(database18, "SELECT 1 FROM customers WHERE id = %s FOR NO KEY UPDATE", customer) as spender:
        buying = asyncio.create_task(ledger18.purchase(purchase_request(8_000, "", "ahmed")))
        await until_somebody_waits(database18)
        await spender.execute(
            "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, -6, 'gift')", (customer,)
        )
        await spender.commit()
        result = await buying
    assert result.purchase is not None
    assert (result.purchase.held_minor, result.purchase.due_minor) == (4_000, 4_000)


@pytest.mark.parametrize(("lock", "redeeming"), [("FOR UPDATE", {"ahmed"}), ("FOR NO KEY UPDATE", set())])
async def test_locked_customers_are_detected(database18: Database, lock: str, redeeming: set[str]) -> None:
    """Or else nobody is set apart, and all who buy beside them wait. A redemption waits for the heavier lock alone."""
    await add_credit(database18, "sara", 0)
    customer = await add_credit(database18, "ahmed", 10_000)
    requests = [
        purchase_request(1, "", "ahmed"),
        purchase_request(1, "", "sara"),
        purchase_request(1, "", "nobody yet"),
    ]
    async with (
        holding(database18, f"SELECT 1 FROM customers WHERE id = %s {lock}", customer),
        await AsyncConnection.connect(database18.runtime_url, autocommit=True) as conn,
    ):
        assert await held(conn, requests, buying=True) == (set(), {"ahmed"})
        assert await held(conn, requests) == (set(), redeeming)


@pytest.mark.parametrize("lock", ["FOR UPDATE", "FOR NO KEY UPDATE"])
async def test_locked_customer_does_not_block_other_orders(ledger18: Ledger, database18: Database, lock: str) -> None:
    customer = await add_credit(database18, "ahmed", 10_000)
    async with holding(database18, f"SELECT 1 FROM customers WHERE id = %s {lock}", customer) as holder:
        stuck = asyncio.create_task(ledger18.purchase(purchase_request(8_000, "", "ahmed")))
        await until_somebody_waits(database18)
        others = await asyncio.gather(*(ledger18.purchase(purchase_request(0)) for _ in range(5)))
        assert {purchase_outcome(result) for result in others} == {"completed"}
        await holder.rollback()
        # It may have given up in the meantime; then it is asked again, as a caller does.
        (answer,) = await asyncio.gather(stuck, return_exceptions=True)
    if isinstance(answer, BaseException):
        answer = await ledger18.purchase(purchase_request(8_000, "", "ahmed"))
    assert purchase_outcome(answer) == "completed"


async def until_somebody_waits(database: Database) -> None:
    query = "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = %s"
    async with asyncio.timeout(20):
        while not await rows(database, query, database.name):
            pass

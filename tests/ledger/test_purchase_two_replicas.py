"""Two replicas place one purchase: in every order of their statements they return the same result.

See also: `interleaving` steps the sessions; test_purchase_concurrent.py, where nobody decides the order.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, rows
from tests.ledger.interleaving import Operation, Run, explore, open_sessions
from tests.ledger.purchase_helpers import purchase_outcome, purchase_request, row_counts, with_redeem_changes
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.batch import purchase_batch
from voucher_operator.ledger.purchase.types import PurchaseRequest, PurchaseResult
from voucher_operator.ledger.redemption.redeem import redeem_batch
from voucher_operator.ledger.types import RedeemResult
from voucher_operator.resources.reasons import Reason

KINDS = ("code", "balance", "one has stripe", "created anew")
REFUSED = Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED.value


def buying(*requests: PurchaseRequest) -> Operation:
    return lambda session: purchase_batch(session, requests)  # type: ignore[arg-type]


def redeeming(request: PurchaseRequest) -> Operation:
    return lambda session: redeem_batch(session, [request.redeem])  # type: ignore[arg-type]


def outcomes(run: Run) -> list[list[str]]:
    """Return the outcome of each request of each replica; an error is its own outcome."""
    return [
        [outcome(one) for one in answers] if isinstance(answers, list) else [repr(answers)] for answers in run.answers
    ]


def outcome(answer: object) -> str:
    match answer:
        case PurchaseResult():
            return purchase_outcome(answer)
        case RedeemResult():
            return redeem_outcome(answer)
    return repr(answer)


async def every_order(
    database: Database, operations: Callable[[int], Sequence[Operation]], preemptions: int = 1
) -> AsyncIterator[Run]:
    """Run the operations of the n-th schedule in replicas of their own, in every order of their statements.

    With one preemption each replica is stopped between any two statements while the other one runs to its end; with two
    that one is stopped again before the first continues.
    """
    numbers = itertools.count()
    async with open_sessions(database, lock_timeout="5s") as sessions:
        async for run in explore(lambda order: sessions.run(operations(next(numbers)), order), preemptions=preemptions):
            yield run


def pair(kind: str, n: int) -> tuple[PurchaseRequest, PurchaseRequest]:
    """Return what two replicas ask with one key: 10.000 of credit, a price of 20.000, and at most one has Stripe."""
    request = purchase_request(20_000, "" if kind == "balance" else "CODE", f"{kind}-{n}", payable=False)
    others = {
        "one has stripe": (request, replace(request, payable=True)),
        "created anew": (request, with_redeem_changes(request, uid=f"other-{n}")),
    }
    return others.get(kind, (request, request))


async def check_one_answer(ledger: Ledger, database: Database, kind: str, preemptions: int = 1) -> None:
    """See that both replicas, and a third one afterwards, give the same answer in every order of the statements."""
    await issue(database, "CODE", 10)
    possible = {REFUSED, "pending"} if "stripe" in kind else {REFUSED}
    asked: list[PurchaseRequest] = []

    def operations(n: int) -> list[Operation]:
        one, two = pair(kind, n)
        asked.append(two)
        return [buying(one), buying(two)]

    async for run in every_order(database, operations, preemptions):
        (first,), (second,) = outcomes(run)
        assert first == second, run
        assert first in possible, run
        assert purchase_outcome(await ledger.purchase(asked[-1])) == second, run
    placed = await rows(database, "SELECT count(*)::int FROM vouchers.purchase")
    assert await rows(database, "SELECT times_redeemed FROM promo_codes") == placed


async def check_batches_without_deadlock(database: Database, preemptions: int = 1) -> None:
    """See that two replicas with the same batch get the same answers, and that PostgreSQL finds no deadlock.

    The batch is tried again with a refusal; what holds that key elsewhere is waited for before customers are.
    """
    await issue(database, "CODE", 10)

    def operations(n: int) -> list[Operation]:
        both = purchase_request(20_000, "CODE", f"user-{n}", payable=False), purchase_request(9_000, "", "ahmed")
        return [buying(*both)] * 2

    async for run in every_order(database, operations, preemptions):
        assert outcomes(run) == [[REFUSED, "pending"]] * 2, run
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await rows(database, deadlocks) == [(0,)]


@pytest.mark.parametrize("kind", KINDS)
async def test_two_replicas_give_one_answer_in_every_order_of_statements(
    ledger18: Ledger, database18: Database, kind: str
) -> None:
    await check_one_answer(ledger18, database18, kind)


@pytest.mark.usefixtures("ledger18")
async def test_two_replicas_with_one_batch_wait_for_each_other_without_deadlock(database18: Database) -> None:
    await check_batches_without_deadlock(database18)


async def test_key_redeemed_without_the_order_is_a_conflict(ledger18: Ledger, database18: Database) -> None:
    """The Redemption was created anew without its order; one replica still has the old one."""
    await issue(database18, "CODE", 10)
    seen = Counter[tuple[str, ...]]()
    recreated: list[PurchaseRequest] = []

    def operations(n: int) -> list[Operation]:
        order = purchase_request(20_000, "CODE", f"user-{n}", payable=False)
        recreated.append(with_redeem_changes(order, uid=f"other-{n}", request_hash=f"anew-{n}"))
        return [buying(order), redeeming(recreated[-1])]

    async for run in every_order(database18, operations):
        seen[tuple(one for (one,) in outcomes(run))] += 1
        assert redeem_outcome(await ledger18.redeem(recreated[-1].redeem)) == "redeemed"
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

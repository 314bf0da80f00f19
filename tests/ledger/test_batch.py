"""The batcher on a real ledger: which requests form a batch, and which requests a lock or an error affects."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import psycopg
import pytest

from testbed.postgres import Database, PostgresServer
from tests.ledger.helpers import holding, issue, redeem_outcome, redeem_request, rows, until
from tests.ledger.purchase_helpers import add_credit, purchase_request
from voucher_operator import telemetry
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.batch import MAX_BATCH, Batcher
from voucher_operator.ledger.errors import LedgerBusyError
from voucher_operator.ledger.types import RedeemRequest, RedeemResult
from voucher_operator.resources.errors import LedgerUnavailableError, OperatorError, RequestRejectedError


@pytest.fixture
def postgres(postgres18: PostgresServer) -> PostgresServer:
    """One version: the statements are tested on each by the other modules, the batcher knows nothing of versions."""
    return postgres18


class GatedBatcher:
    """Wraps a real ledger: records batches and holds them until the test opens the gate."""

    def __init__(self, ledger: Ledger) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()
        self._ledger = ledger
        self.batcher = Batcher(self._redeem, ledger._held, isolated_connections=3)

    async def _redeem(self, requests: Sequence[RedeemRequest]) -> list[RedeemResult | OperatorError]:
        self.batches.append([request.key for request in requests])
        self.arrived.set()
        await self.open.wait()
        return await self._ledger._redeem(requests)


async def test_single_request_is_sent_at_once(ledger: Ledger, database: Database) -> None:
    await issue(database)
    gate = GatedBatcher(ledger)
    asked = redeem_request()
    assert redeem_outcome(await gate.batcher.submit(asked)) == "redeemed"
    assert gate.batches == [[asked.key]]


async def test_requests_during_a_commit_form_the_next_batch(ledger: Ledger, database: Database) -> None:
    await issue(database, max_redemptions=3)
    gate = GatedBatcher(ledger)
    gate.open.clear()
    requests = [redeem_request() for _ in range(5)]
    first = gate.batcher.submit(requests[0])
    await gate.arrived.wait()
    others = [gate.batcher.submit(request) for request in requests[1:]]
    gate.open.set()
    answers = await asyncio.gather(first, *others)
    assert gate.batches == [[requests[0].key], [request.key for request in requests[1:]]]
    assert [redeem_outcome(answer) for answer in answers] == ["redeemed"] * 3 + ["RedemptionLimitReached"] * 2
    assert [answer.key for answer in answers] == [request.key for request in requests]


async def test_callers_that_ask_again_share_the_next_batch(ledger: Ledger, database: Database) -> None:
    await issue(database)
    gate = GatedBatcher(ledger)
    gate.open.clear()

    async def caller() -> None:
        await gate.batcher.submit(redeem_request())
        await gate.batcher.submit(redeem_request())

    callers = [asyncio.create_task(caller()) for _ in range(50)]
    await gate.arrived.wait()
    late = gate.batcher.submit(redeem_request())
    gate.open.set()
    await asyncio.gather(late, *callers)
    assert [len(batch) for batch in gate.batches] == [50, 51]


async def test_batch_size_is_limited(ledger: Ledger, database: Database) -> None:
    await issue(database)
    gate = GatedBatcher(ledger)
    await asyncio.gather(*(gate.batcher.submit(redeem_request()) for _ in range(MAX_BATCH + 1)))
    assert [len(batch) for batch in gate.batches] == [MAX_BATCH, 1]


async def test_same_key_twice_in_a_batch_is_redeemed_once_and_replayed(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = redeem_request(user="ahmed")
    answers = await asyncio.gather(
        ledger.redeem(asked),
        ledger.redeem(asked),
        ledger.redeem(replace(asked, request_hash="other")),
        ledger.redeem(redeem_request()),
    )
    assert [(redeem_outcome(a), a.replayed) for a in answers] == [
        ("redeemed", False),
        ("redeemed", True),
        ("IdempotencyConflict", False),
        ("redeemed", False),
    ]
    assert await ledger.balance("ahmed") == 10_000


@pytest.mark.parametrize("bad", [{"user_id": "a\0b"}, {"code": "\ud800"}, {"code": "HUGE"}])
async def test_bad_request_fails_without_failing_its_batch(
    ledger: Ledger, database: Database, bad: dict[str, str]
) -> None:
    await issue(database)
    await issue(database, "HUGE", granted_minor=2**63 - 1)
    requests = [redeem_request() for _ in range(20)]
    requests[13] = redeem_request(**bad)
    answers = await asyncio.gather(*(ledger.redeem(request) for request in requests), return_exceptions=True)
    assert isinstance(answers.pop(13), RequestRejectedError)
    assert {redeem_outcome(a) for a in answers if isinstance(a, RedeemResult)} == {"redeemed"}
    assert len(answers) == 19
    await rows(database, "UPDATE promo_codes SET granted_minor = 0 WHERE code = 'HUGE'")


async def test_cancelled_request_does_not_affect_others_in_its_batch(ledger: Ledger, database: Database) -> None:
    await issue(database)
    gate = GatedBatcher(ledger)
    gate.open.clear()
    under_way, waiting, last = redeem_request(user="under-way"), redeem_request(user="waiting"), redeem_request()
    first = gate.batcher.submit(under_way)
    neighbour = gate.batcher.submit(redeem_request())
    await gate.arrived.wait()
    second, third = gate.batcher.submit(waiting), gate.batcher.submit(last)
    first.cancel()
    second.cancel()
    gate.open.set()
    assert redeem_outcome(await neighbour) == "redeemed"
    assert redeem_outcome(await third) == "redeemed"
    assert gate.batches[1] == [last.key]
    # What was under way is granted and read again; what had not begun is granted now.
    assert [(await ledger.redeem(r)).replayed for r in (under_way, waiting)] == [True, False]
    assert (await ledger.balance("under-way"), await ledger.balance("waiting")) == (10_000, 10_000)


async def test_locked_code_does_not_block_other_codes(ledger: Ledger, database: Database) -> None:
    await issue(database, "STUCK")
    await issue(database, "FREE")
    async with holding(database, "SELECT FROM promo_codes WHERE code = 'STUCK' FOR UPDATE"):
        mixed = [redeem_request(code) for code in ("FREE", "STUCK", "FREE", "stuck", "FREE")]
        answers = await asyncio.gather(*(ledger.redeem(r) for r in mixed), return_exceptions=True)
        assert [isinstance(a, LedgerBusyError) for a in answers] == [False, True, False, True, False]
        assert {redeem_outcome(a) for a in answers if isinstance(a, RedeemResult)} == {"redeemed"}
        # The code has a side lane: while a request waits there, other codes are redeemed.
        stuck = asyncio.ensure_future(ledger.redeem(redeem_request("STUCK")))
        assert redeem_outcome(await ledger.redeem(redeem_request("FREE"))) == "redeemed"
        assert not stuck.done()
        with pytest.raises(LedgerUnavailableError):
            await stuck
    assert {redeem_outcome(await ledger.redeem(request)) for request in mixed} == {"redeemed"}
    assert ledger._batcher._isolated == {}


async def test_code_unlocked_within_the_lock_timeout_is_redeemed(ledger: Ledger, database: Database) -> None:
    await issue(database, "STUCK")
    async with holding(database, "SELECT FROM promo_codes WHERE code = 'STUCK' FOR UPDATE") as other:
        waiting = asyncio.ensure_future(ledger.redeem(redeem_request("STUCK")))
        await until(lambda: bool(ledger._batcher._isolated))
        await other.rollback()
        assert redeem_outcome(await waiting) == "redeemed"


async def test_locked_customer_does_not_block_other_customers(ledger: Ledger, database: Database) -> None:
    await issue(database)
    await rows(database, "INSERT INTO customers (user_id, tenant_id, email) VALUES ('stuck', 't', 'e')")
    async with holding(database, "SELECT FROM customers FOR UPDATE"):
        requests = [redeem_request(), redeem_request(user="stuck"), redeem_request()]
        answers = await asyncio.gather(*(ledger.redeem(r) for r in requests), return_exceptions=True)
        assert isinstance(answers.pop(1), LedgerBusyError)
        assert [redeem_outcome(a) for a in answers if isinstance(a, RedeemResult)] == ["redeemed", "redeemed"]
    assert redeem_outcome(await ledger.redeem(requests[1])) == "redeemed"
    assert ledger._batcher._isolated == {}


@pytest.mark.parametrize("buying", [False, True])
async def test_locked_account_does_not_block_other_customers(ledger: Ledger, database: Database, buying: bool) -> None:
    """As the Go service holds it while its checkout is not committed."""
    await issue(database)
    await add_credit(database, "stuck", 1_000)

    def asked(request: RedeemRequest) -> asyncio.Future[object]:
        work = ledger.purchase(purchase_request(1_000, redeem=request)) if buying else ledger.redeem(request)
        return asyncio.ensure_future(work)

    insert = "INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, -1, 'order-payment' FROM customers"
    async with holding(database, insert):
        requests = [redeem_request(), redeem_request(user="stuck"), redeem_request()]
        answers = await asyncio.gather(*map(asked, requests), return_exceptions=True)
        assert [isinstance(answer, LedgerBusyError) for answer in answers] == [False, True, False]
    await asked(requests[1])
    assert not ledger._batcher._isolated
    assert not ledger._purchaser._isolated


async def test_uncommitted_new_customer_does_not_block_other_customers(ledger: Ledger, database: Database) -> None:
    """An uncommitted new customer is invisible, and yet a second one of that name has to wait."""
    await issue(database)
    insert = "INSERT INTO customers (user_id, tenant_id, email) VALUES ('stuck', 't', 'e')"
    async with holding(database, insert):
        requests = [redeem_request(), redeem_request(user="stuck"), redeem_request(), redeem_request()]
        answers = await asyncio.gather(*(ledger.redeem(r) for r in requests), return_exceptions=True)
        assert isinstance(answers.pop(1), LedgerBusyError)
        assert [redeem_outcome(a) for a in answers if isinstance(a, RedeemResult)] == ["redeemed"] * 3
    assert redeem_outcome(await ledger.redeem(requests[1])) == "redeemed"


async def test_close_waits_for_requests_under_way(ledger: Ledger, database: Database) -> None:
    await issue(database)
    answers = [asyncio.ensure_future(ledger.redeem(redeem_request())) for _ in range(30)]
    await asyncio.sleep(0)
    await ledger.close()
    assert {redeem_outcome(answer.result()) for answer in answers} == {"redeemed"}
    with pytest.raises(LedgerUnavailableError):
        await ledger.redeem(redeem_request())
    with pytest.raises(LedgerUnavailableError):
        await ledger.balance("ahmed")


async def test_failed_statement_leaves_no_rows_and_no_locks(ledger: Ledger, database: Database) -> None:
    """The pipeline has no COMMIT of its own: when its second statement fails, the first one's locks are gone too."""
    await issue(database, granted_minor=2**63 - 1)
    with pytest.raises(RequestRejectedError):
        await ledger.redeem(redeem_request())
    async with await psycopg.AsyncConnection.connect(database.admin_url, autocommit=True) as admin:
        await admin.execute("SELECT 1 FROM promo_codes FOR UPDATE NOWAIT")
    for table in ("customers", "promo_redemptions", "credit_ledger", "vouchers.redemption"):
        assert await rows(database, f"SELECT 1 FROM {table}") == []
    await rows(database, "UPDATE promo_codes SET granted_minor = 0")


async def test_result_of_a_newer_version_fails_only_its_request(ledger: Ledger, database: Database) -> None:
    await issue(database)
    asked = [redeem_request() for _ in range(4)]
    async with await psycopg.AsyncConnection.connect(database.owner_url) as conn:
        await conn.execute(
            "INSERT INTO vouchers.redemption (key, request_hash, uid, outcome, reason, user_id, decided_at)"
            " VALUES (%s, 'h', %s, 'refused', 'FromTheFuture', 'somebody', now())",
            (asked[1].key, asked[1].uid),
        )
    answers = await asyncio.gather(*(ledger.redeem(one) for one in asked), return_exceptions=True)
    assert isinstance(answers[1], LedgerUnavailableError)
    assert "upgrade" in answers[1].message
    assert [redeem_outcome(answer) for answer in answers if isinstance(answer, RedeemResult)] == ["redeemed"] * 3


async def test_unexpected_error_fails_only_its_request() -> None:
    async def broken(requests: Sequence[RedeemRequest]) -> list[RedeemResult | OperatorError]:
        if any(request.key == asked[1].key for request in requests):
            raise ZeroDivisionError
        return [LedgerUnavailableError("reached") for _ in requests]

    async def nothing_held(_: Sequence[RedeemRequest]) -> tuple[set[str], set[str]]:
        return set(), set()

    asked = [redeem_request() for _ in range(4)]
    batcher = Batcher(broken, nothing_held, isolated_connections=1)
    answers = await asyncio.gather(*(batcher.submit(one) for one in asked), return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        LedgerUnavailableError,
        ZeroDivisionError,
        LedgerUnavailableError,
        LedgerUnavailableError,
    ]


async def test_batch_metrics_count_requests(ledger: Ledger, database: Database) -> None:
    await issue(database)
    before = telemetry.REGISTRY.get_sample_value("voucher_operator_ledger_batch_size_sum") or 0
    await asyncio.gather(*(ledger.redeem(redeem_request()) for _ in range(7)))
    after = telemetry.REGISTRY.get_sample_value("voucher_operator_ledger_batch_size_sum") or 0
    assert after - before == 7
    assert telemetry.REGISTRY.get_sample_value("voucher_operator_ledger_batch_seconds_count")

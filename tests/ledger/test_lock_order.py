"""The use cases lock what `ledger.locks` lists, in its order: run on a session that records statements."""

import asyncio
from typing import Any

import psycopg

from testbed.postgres import Database
from tests.ledger.helpers import holding, open_ledger, redeem_request, rows, session, terms
from tests.ledger.purchase_helpers import purchase_request
from tests.ledger.purchase_rows import event_outcomes, place
from tests.ledger.test_payments_concurrent import waiting
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.locks import STATEMENTS, USE_CASES
from voucher_operator.ledger.payment import payments
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.batch import purchase_batch
from voucher_operator.ledger.purchase.types import PaymentEffect, Received
from voucher_operator.ledger.redemption.redeem import redeem_batch
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import VoucherOwner
from voucher_operator.ledger.voucher import vouchers
from voucher_operator.resources.reasons import Reason

NAMES = {statement(name): name for name in STATEMENTS}


class Recorder:
    """A session of the operator that records the names of the statements that lock or write."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self._ran: list[str] = []
        ran = self._ran

        class RecordingCursor(psycopg.AsyncCursor[Any]):
            async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                if query in NAMES:
                    ran.append(NAMES[query])
                return await super().execute(query, *args, **options)

        conn.cursor_factory = RecordingCursor

    def check(self, use_case: str, *left_out: str) -> None:
        """Compare what ran since the last call with the list of a use case, without what this run did not need."""
        assert self._ran == [name for name in USE_CASES[use_case] if name not in left_out]
        self._ran.clear()


async def test_use_cases_run_the_listed_statements_in_order(database18: Database) -> None:
    async with await session(database18) as conn:
        await conn.execute("SET idle_in_transaction_session_timeout = '5s'")
        recorder = Recorder(conn)
        await vouchers.put(conn, terms())
        recorder.check("put a voucher")
        await redeem_batch(conn, [redeem_request()])
        recorder.check("redeem a batch")
        request = purchase_request(90_000, "CODE")
        await purchase_batch(conn, [request])
        recorder.check("purchase a batch")
        await purchases.compensate(conn, request.key, Reason.PAYMENT_REJECTED)
        recorder.check("compensate a purchase")
        owner = VoucherOwner("voucher-1", "billing", "first")
        await vouchers.deactivate(conn, owner)
        recorder.check("deactivate a voucher")
        await vouchers.revoke(conn, owner)
        recorder.check("revoke a voucher")


async def test_payment_events_run_the_listed_statements_in_order(database18: Database) -> None:
    placed = await place(database18)
    async with await session(database18) as conn:
        await conn.execute("SET idle_in_transaction_session_timeout = '5s'")
        recorder = Recorder(conn)
        await payments.receive(conn, placed.event(), "")
        recorder.check("receive a payment event", "payment_event_lock", "payment_dispute", "payment_event_refunded")
        await payments.receive(conn, placed.event(PaymentEffect.REFUNDED), "")
        recorder.check("receive a payment event", "payment_event_lock", "payment_dispute")


async def test_refund_does_not_wait_for_a_lookup_that_waits_for_the_customer(database18: Database) -> None:
    """The lookup holds its own event, which the refund resolves; the refund holds the customer."""
    placed = await place(database18)
    other_payment = placed.event(lookup=True, session_id="cs_other")
    refund = placed.event(PaymentEffect.REFUNDED, session_id="cs_other")
    async with open_ledger(database18.runtime_url) as one, open_ledger(database18.runtime_url) as two:
        assert await one.receive(other_payment) is Received.MISMATCH
        async with holding(database18, "SELECT 1 FROM customers FOR UPDATE") as holder:
            first = asyncio.create_task(one.receive(refund))
            await waiting(database18, 1)
            second = asyncio.create_task(two.receive(other_payment))
            await waiting(database18, 2)
            await holder.rollback()
        assert (await first, await second) == (Received.NO_CHANGE, Received.DUPLICATE)
    assert await event_outcomes(database18) == ["no_change", "no_change"]
    assert await rows(database18, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]

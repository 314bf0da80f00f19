"""Concurrent payment events, and sessions that end in the middle of one: kept and applied once, or not at all."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import holding, issue, open_ledger, rows
from tests.ledger.purchase_helpers import add_credit, place_purchase, purchase_request
from tests.ledger.purchase_rows import event_outcomes, order_state, place
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.purchase.types import PaymentEffect, PaymentEvent, PurchaseState, Received
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.resources.reasons import Reason

HELD = 10_500
FAILS = """
CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER fails BEFORE INSERT ON vouchers.outbox FOR EACH ROW EXECUTE FUNCTION fails();
"""
ENDS_SESSION_ONCE = """
CREATE SEQUENCE attempts;
CREATE FUNCTION ends_session() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF nextval('public.attempts') = 1 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ends_session BEFORE INSERT ON vouchers.outbox FOR EACH ROW EXECUTE FUNCTION ends_session();
"""


async def test_same_event_from_twenty_callers_is_applied_once(database18: Database) -> None:
    placed = await place(database18)
    event = placed.event()
    async with open_ledger(database18.runtime_url) as one, open_ledger(database18.runtime_url) as other:
        received = await asyncio.gather(*((one, other)[n % 2].receive(event) for n in range(20)))
    assert Counter(received) == {Received.APPLIED: 1, Received.DUPLICATE: 19}
    assert await event_outcomes(database18) == ["applied"]
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert await verify(database18.runtime_url) == []


async def test_concurrent_different_events_end_completed(database18: Database) -> None:
    """Paid, expired, failed at once: one of them decides; paid wins in the end, and the credit is held once."""
    placed = await place(database18)
    effects = (PaymentEffect.PAID, PaymentEffect.EXPIRED, PaymentEffect.FAILED, PaymentEffect.PROCESSING)
    async with open_ledger(database18.runtime_url) as one, open_ledger(database18.runtime_url) as other:
        await asyncio.gather(*((one, other)[n % 2].receive(placed.event(effects[n % 4])) for n in range(20)))
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert await verify(database18.runtime_url) == []


async def test_concurrent_payments_of_cancelled_orders_use_the_credit_once(database18: Database) -> None:
    """Both are paid at the same moment: the balance is read under the customer's lock, so only one takes it again."""
    first = await place(database18, PurchaseState.CANCELLED)
    second = await place(database18, PurchaseState.CANCELLED, credit=0)
    async with open_ledger(database18.runtime_url) as one, open_ledger(database18.runtime_url) as other:
        async with holding(database18, "SELECT 1 FROM customers FOR UPDATE") as holder:
            both = asyncio.gather(one.receive(first.event()), other.receive(second.event()))
            await waiting(database18, 2)
            await holder.rollback()
        received = await both
    assert sorted(received) == [Received.APPLIED, Received.MISMATCH]
    assert sorted([(await order_state(database18, first))[0], (await order_state(database18, second))[0]]) == [
        "cancelled",
        "completed",
    ]
    assert [found.invariant for found in await verify(database18.runtime_url)] == ["webhook_events"]


async def test_payment_during_compensation_is_applied_or_reported(database18: Database) -> None:
    """Whoever has the customer's lock first decides: paid stays paid, and money for what was taken back is named."""
    await issue(database18, "CODE", 10)
    async with open_ledger(database18.runtime_url) as one, open_ledger(database18.runtime_url) as other:
        purchase = await place_purchase(one, purchase_request(50_000, "CODE", "ahmed"))
        paid = PaymentEvent("evt", "paid", PaymentEffect.PAID, b"", "cs", purchase.order_id, "sub", purchase.due_minor)
        async with holding(database18, "SELECT 1 FROM customers FOR UPDATE") as holder:
            both = asyncio.gather(one.receive(paid), other.compensate(purchase.key, Reason.ABANDONED))
            await waiting(database18, 2)
            await holder.rollback()
        received, _ = await both
        left = await one.purchase_of(purchase.key)
    assert left is not None
    ends = {
        Received.APPLIED: (PurchaseState.COMPLETED, []),
        Received.MISMATCH: (PurchaseState.ROLLED_BACK, ["webhook_events"]),
    }
    assert (left.state, [found.invariant for found in await verify(database18.runtime_url)]) == ends[received]
    assert await rows(database18, "SELECT sum(amount_minor)::bigint FROM credit_ledger") == [(0,)]


async def test_order_event_is_the_same_by_card_as_by_credit(database18: Database) -> None:
    async with open_ledger(database18.runtime_url) as ledger:
        await add_credit(database18, "ahmed", 10_000)
        await add_credit(database18, "sara", 50_000)
        by_card = await place_purchase(ledger, purchase_request(50_000, user="ahmed"))
        ends = by_card.placed_at + timedelta(hours=1)
        await ledger.record_session(by_card.key, "cs_1", "https://checkout.example.com", ends)
        paid = PaymentEvent("evt", "paid", PaymentEffect.PAID, b"", "cs_1", None, "sub_1", by_card.due_minor)
        assert await ledger.receive(paid) is Received.APPLIED
        by_credit = await place_purchase(ledger, purchase_request(50_000, user="sara"))
        first, second = await ledger.outbox_pending(10)
    differ = {"id": by_credit.order_id, "customer_id": by_credit.customer_id}
    assert {**first.data, **differ} == second.data
    assert (first.type, first.tenant_id) == (second.type, second.tenant_id)
    assert await verify(database18.runtime_url) == []


async def waiting(database: Database, sessions: int) -> None:
    """Wait until so many of the operator's sessions wait for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'voucher-operator' "
        "AND datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while (await rows(database, query))[0][0] < sessions:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def test_event_is_not_kept_when_its_effect_fails(database18: Database) -> None:
    placed = await place(database18)
    event = placed.event()
    await rows(database18, FAILS)
    async with open_ledger(database18.runtime_url) as ledger:
        with pytest.raises(LedgerUnavailableError):
            await ledger.receive(event)
        assert await event_outcomes(database18) == []
        assert await order_state(database18, placed) == ("awaiting_payment", "pending", 0)
        await rows(database18, "DROP TRIGGER fails ON vouchers.outbox")
        assert await ledger.receive(event) is Received.APPLIED
    assert await verify(database18.runtime_url) == []


async def test_event_is_applied_once_when_the_session_ends_in_between(database18: Database) -> None:
    placed = await place(database18)
    await rows(database18, ENDS_SESSION_ONCE)
    async with open_ledger(database18.runtime_url) as ledger:
        assert await ledger.receive(placed.event()) is Received.APPLIED
    assert await rows(database18, "SELECT last_value FROM attempts") == [(2,)]
    assert await event_outcomes(database18) == ["applied"]
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert await verify(database18.runtime_url) == []


async def test_stale_sessions_lists_awaiting_purchases_oldest_first(database18: Database) -> None:
    older, newer = await place(database18, user="a"), await place(database18, user="b")
    for state in PurchaseState:
        if state is not PurchaseState.AWAITING_PAYMENT:
            await place(database18, state, user=state)
    await rows(
        database18, "UPDATE vouchers.purchase SET checked_at = placed_at - interval '1 day' WHERE key = %s", newer.key
    )
    before = await rows(database18, "SELECT key, updated_at FROM vouchers.purchase ORDER BY key")
    async with open_ledger(database18.runtime_url) as ledger:
        assert await ledger.purchases_to_check(3600, 10) == []
        async with holding(database18, "SELECT 1 FROM vouchers.purchase WHERE key = %s FOR UPDATE", older.key):
            assert [one.key for one in await ledger.purchases_to_check(300, 10)] == [newer.key]
        (found,) = await ledger.purchases_to_check(300, 1)
        assert (found.key, found.order_id, found.session_id, found.state) == (
            older.key,
            older.order,
            older.session,
            PurchaseState.AWAITING_PAYMENT,
        )
        assert (found.total_minor, found.held_minor, found.due_minor, found.overdue) == (50_000, HELD, 39_500, False)
        assert (found.apps, found.addons, [line.slug for line in found.lines]) == (("shop",), ("waf",), ["l"])
        assert await ledger.purchases_to_check(300, 10) == []
        assert len(await ledger.purchases_to_check(-1, 1)) == 1
    assert await rows(database18, "SELECT key, updated_at FROM vouchers.purchase ORDER BY key") == before

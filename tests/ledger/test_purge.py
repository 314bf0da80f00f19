"""Purge: old published events and old settled webhook events are deleted, and nothing else."""

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import holding, open_ledger, rows
from tests.ledger.purchase_rows import place
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.outbox import events as outbox
from voucher_operator.ledger.purchase.types import PaymentEffect, PurchaseState, Received

EVENT = """
INSERT INTO vouchers.outbox (type, tenant_id, data, at, published_at)
SELECT 'test', 'a', jsonb_build_object('n', n), now() - interval '400 days', now() - age::interval
FROM unnest(%s::integer[], %s::text[]) AS given (n, age)
"""
WEBHOOK_EVENTS = """
INSERT INTO vouchers.webhook_event (event_id, type, raw, outcome, received_at)
SELECT outcome || ' ' || age, 'test', '', outcome, now() - age::interval
FROM unnest(%s::text[]) AS outcome CROSS JOIN unnest(%s::text[]) AS age
"""
AGE = """
WITH settled AS (UPDATE vouchers.purchase SET settled_at = now() - interval '{age}'),
webhook_events AS (UPDATE vouchers.webhook_event SET received_at = now() - interval '{age}')
UPDATE vouchers.outbox SET at = now() - interval '{age}', published_at = now() - interval '{age}'
"""


async def _remaining(database: Database) -> list[int]:
    return [n for (n,) in await rows(database, "SELECT (data ->> 'n')::integer FROM vouchers.outbox ORDER BY seq")]


async def test_purge_deletes_only_old_published_events(database18: Database) -> None:
    await rows(database18, EVENT, [1, 2, 3, 4], ["31 days", "29 days", None, "1 year"])
    async with open_ledger(database18.runtime_url) as ledger:
        await ledger.purge()
        assert await _remaining(database18) == [2, 3]
        (waits,) = await ledger.outbox_pending(10)
        assert waits.data == {"n": 3}


async def test_purge_deletes_only_old_settled_webhook_events(database18: Database) -> None:
    await rows(
        database18, WEBHOOK_EVENTS, ["applied", "unknown", "foreign", "no_change", "mismatch"], ["91 days", "89 days"]
    )
    async with open_ledger(database18.runtime_url) as ledger:
        await ledger.purge()
    left = {event for (event,) in await rows(database18, "SELECT event_id FROM vouchers.webhook_event")}
    young = {f"{outcome} 89 days" for outcome in ("applied", "unknown", "foreign", "no_change", "mismatch")}
    assert left == young | {"mismatch 91 days"}


async def test_purge_deletes_all_old_rows_in_small_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is, each transaction is small."""
    monkeypatch.setattr(outbox, "_AT_ONCE", 2)
    await rows(database, EVENT, list(range(6)), ["31 days", "40 days", "35 days", "29 days", None, "40 days"])
    await rows(
        database, WEBHOOK_EVENTS, ["applied", "mismatch", "unknown"], [f"{days} days" for days in (89, 91, 92, 93)]
    )
    async with open_ledger(database.runtime_url) as ledger:
        await ledger.purge()
    assert await _remaining(database) == [3, 4]
    count = await rows(database, "SELECT count(*) FROM vouchers.webhook_event")
    assert count == [(6,)]


async def test_purge_stops_at_its_time_limit_and_continues_next_time(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_AT_ONCE", 2)
    await rows(database18, EVENT, list(range(5)), ["40 days"] * 5)
    async with open_ledger(database18.runtime_url) as ledger:
        for number in (3, 1, 0):
            await ledger.purge(0)
            assert len(await _remaining(database18)) == number


async def test_locked_event_is_purged_next_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_AT_ONCE", 2)
    await rows(database, EVENT, list(range(5)), [f"{days} days" for days in (50, 49, 48, 47, 46)])
    async with open_ledger(database.runtime_url) as ledger:
        async with holding(database, "SELECT 1 FROM vouchers.outbox WHERE data ->> 'n' IN ('0', '2') FOR UPDATE"):
            await ledger.purge()
            assert await _remaining(database) == [0, 2]
        await ledger.purge()
        assert await _remaining(database) == []


async def test_purged_ledger_stays_consistent(database18: Database) -> None:
    """A repeated event whose row was purged changes nothing: the purchase has its state."""
    for state in PurchaseState:
        await place(database18, state, user=state)
    placed = await place(database18, user="payer")
    event = placed.event()
    async with open_ledger(database18.runtime_url) as ledger:
        assert await ledger.receive(event) is Received.APPLIED
        for age in ("28 days", "100 days"):
            await rows(database18, AGE.format(age=age))
            await ledger.purge()
            assert await verify(database18.owner_url) == []
        assert (
            await rows(database18, "SELECT 1 FROM vouchers.outbox UNION ALL SELECT 1 FROM vouchers.webhook_event") == []
        )
        assert await ledger.receive(event) is Received.NO_CHANGE
        assert await ledger.receive(placed.event(PaymentEffect.EXPIRED)) is Received.NO_CHANGE
        assert await ledger.outbox_pending(10) == []
    assert await verify(database18.owner_url) == []


async def test_verify_requires_the_event_of_a_recent_purchase(database18: Database) -> None:
    await place(database18, PurchaseState.COMPLETED)
    await rows(database18, AGE.format(age="28 days"))
    await rows(database18, "DELETE FROM vouchers.outbox")
    (violation,) = await verify(database18.owner_url)
    assert violation.detail == "is completed and has 0 events order.placed"

"""The outbox: events are pending in order until they are marked as published."""

import json
from typing import Any

from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.helpers import holding, open_ledger, rows
from tests.ledger.purchase_rows import place
from voucher_operator.ledger.outbox.types import OutboxBacklog
from voucher_operator.ledger.purchase.types import PurchaseState

WRITE = "INSERT INTO vouchers.outbox (type, tenant_id, data) VALUES ('test', %s, %s)"


async def write(conn: AsyncConnection[Any], tenant: str, *numbers: int) -> None:
    for number in numbers:
        await conn.execute(WRITE, (tenant, json.dumps({"n": number})))


async def test_pending_events_come_in_order_until_marked_published(database18: Database) -> None:
    async with await AsyncConnection.connect(database18.owner_url, autocommit=True) as owner:
        for n in range(6):
            await write(owner, ("a", "b")[n % 2], n)
    async with open_ledger(database18.runtime_url) as ledger:
        assert await ledger.outbox_pending(0) == []
        first = await ledger.outbox_pending(4)
        assert [(event.tenant_id, event.data["n"]) for event in first] == [("a", 0), ("b", 1), ("a", 2), ("b", 3)]
        assert [event.seq for event in first] == sorted(event.seq for event in first)
        await ledger.outbox_published([first[0].id, first[3].id])
    async with open_ledger(database18.runtime_url) as again:
        assert [event.data["n"] for event in await again.outbox_pending(10)] == [1, 2, 4, 5]
        assert (await again.outbox_pending(1))[0].id == first[1].id
        before = await rows(database18, "SELECT id, published_at FROM vouchers.outbox WHERE published_at IS NOT NULL")
        await again.outbox_published([first[0].id, first[3].id])
        await again.outbox_published([])
        assert before == await rows(
            database18, "SELECT id, published_at FROM vouchers.outbox WHERE published_at IS NOT NULL"
        )


async def test_pending_events_leave_out_given_tenants(database18: Database) -> None:
    async with await AsyncConnection.connect(database18.owner_url, autocommit=True) as owner:
        for n in range(6):
            await write(owner, ("a", "", "c")[n % 3], n)
    async with open_ledger(database18.runtime_url) as ledger:
        assert [event.data["n"] for event in await ledger.outbox_pending(3, ["", "a", "nobody"])] == [2, 5]
        assert [event.data["n"] for event in await ledger.outbox_pending(3, ["a"])] == [1, 2, 4]


async def test_backlog_counts_unpublished_events_and_their_age(database18: Database) -> None:
    async with open_ledger(database18.runtime_url) as ledger:
        assert await ledger.outbox_backlog() == OutboxBacklog(0, 0.0)
        await rows(
            database18,
            "INSERT INTO vouchers.outbox (type, tenant_id, data, at) "
            "SELECT 'test', 'a', '{}', clock_timestamp() - n * interval '1 minute' FROM generate_series(3, 1, -1) AS n",
        )
        found = await ledger.outbox_backlog()
        assert found.waiting == 3
        assert 180 <= found.oldest_seconds < 3600
        await ledger.outbox_published([event.id for event in await ledger.outbox_pending(2)])
        found = await ledger.outbox_backlog()
        assert found.waiting == 1
        assert 60 <= found.oldest_seconds < 180 * 60
        await ledger.outbox_published([event.id for event in await ledger.outbox_pending(2)])
        assert await ledger.outbox_backlog() == OutboxBacklog(0, 0.0)


async def test_uncommitted_event_does_not_block_later_events(database18: Database) -> None:
    """Its number is smaller than one that was committed before it: it comes when it is true, and is not missed."""
    async with (
        open_ledger(database18.runtime_url) as ledger,
        holding(database18, WRITE, "slow", '{"n": 1}') as slow,
        await AsyncConnection.connect(database18.owner_url, autocommit=True) as owner,
    ):
        await write(owner, "fast", 2)
        (fast,) = await ledger.outbox_pending(10)
        await ledger.outbox_published([fast.id])
        await slow.commit()
        (late,) = await ledger.outbox_pending(10)
        assert (fast.data["n"], late.data["n"]) == (2, 1)
        assert late.seq < fast.seq


async def test_order_event_has_the_time_of_completion(database18: Database) -> None:
    placed = await place(database18, PurchaseState.AWAITING_PAYMENT)
    async with open_ledger(database18.runtime_url) as ledger:
        await ledger.receive(placed.event())
        (event,) = await ledger.outbox_pending(10)
    assert await rows(database18, "SELECT settled_at FROM vouchers.purchase") == [(event.at,)]

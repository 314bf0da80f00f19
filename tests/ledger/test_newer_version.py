"""Rows of a newer version, after a rollback of the operator: every periodic task continues with all others."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import rows
from tests.ledger.purchase_rows import PlacedPurchase, place
from voucher_operator import telemetry
from voucher_operator.controllers.purchase.periodic import PurchaseTasks
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import NewerVersionError
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.purchase.types import PaymentEffect, Purchase, PurchaseState, Received
from voucher_operator.resources.keys import Key
from voucher_operator.settings import Settings

NEWER = {
    "reason": "UPDATE vouchers.purchase SET reason = 'OfANewerVersion' WHERE key = %s",
    "line": 'UPDATE vouchers.purchase SET lines = lines || \'[{"kind": "plan", "quantity": 2}]\' WHERE key = %s',
    "lines": "UPDATE vouchers.purchase SET lines = '{\"items\": []}' WHERE key = %s",
}
STATE = """
ALTER TABLE vouchers.purchase DROP CONSTRAINT purchase_state_check;
"""
Pass = Callable[[Ledger], Awaitable[list[Purchase]]]
PASSES: dict[PurchaseState, Pass] = {
    PurchaseState.PENDING: lambda ledger: ledger.open_purchases(1),
    PurchaseState.AWAITING_PAYMENT: lambda ledger: ledger.purchases_to_check(0, 1),
    PurchaseState.COMPLETED: lambda ledger: ledger.undelivered_purchases(["billing"], 0, 1),
}


async def two(database: Database, state: PurchaseState) -> tuple[PlacedPurchase, PlacedPurchase]:
    """An older and a newer purchase that wait for the same pass."""
    placed = await place(database, state, user="older"), await place(database, state, user="newer")
    await rows(
        database,
        "UPDATE vouchers.purchase SET placed_at = placed_at - interval '1 hour', "
        "settled_at = CASE WHEN state = 'completed' THEN clock_timestamp() - interval '1 minute' END WHERE key = %s",
        placed[0].key,
    )
    await rows(
        database,
        "UPDATE vouchers.purchase SET settled_at = clock_timestamp() WHERE key = %s AND state = 'completed'",
        placed[1].key,
    )
    return placed


async def looked_at(database: Database, placed: PlacedPurchase) -> list[tuple[object, ...]]:
    return await rows(
        database, "SELECT checked_at, look_at, delivered_at FROM vouchers.purchase WHERE key = %s", placed.key
    )


@pytest.mark.parametrize("change", NEWER.values(), ids=NEWER)
@pytest.mark.parametrize("state", PASSES)
async def test_periodic_task_skips_only_rows_of_a_newer_version(
    ledger: Ledger, database: Database, state: PurchaseState, change: str
) -> None:
    """The first place of a page of one is not the unreadable row's, nor is that row noted as looked at."""
    newer, other = await two(database, state)
    await rows(database, change, newer.key)
    before = await looked_at(database, newer)
    for _ in range(2):
        assert [found.key for found in await PASSES[state](ledger)] == [other.key]
    assert await looked_at(database, newer) == before
    assert await ledger.newer_purchases(10) == [newer.key]
    with pytest.raises(NewerVersionError):
        await ledger.purchase_of(Key(newer.key))
    assert await ledger.purchase_of(Key(other.key)) is not None


async def test_due_ended_purchase_of_a_newer_version_is_skipped(ledger18: Ledger, database18: Database) -> None:
    """What was cancelled or refunded is looked at to end its subscription."""
    newer, other = await two(database18, PurchaseState.REFUNDED)
    await rows(database18, "UPDATE vouchers.purchase SET look_at = clock_timestamp(), settled_at = clock_timestamp()")
    await rows(database18, NEWER["reason"], newer.key)
    before = await looked_at(database18, newer)
    assert [found.key for found in await ledger18.purchases_to_check(0, 1)] == [other.key]
    assert await looked_at(database18, newer) == before
    assert await ledger18.newer_purchases(10) == [newer.key]


async def test_delivered_purchase_of_a_newer_version_is_not_counted(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, PurchaseState.COMPLETED)
    await rows(database18, "UPDATE vouchers.purchase SET delivered_at = settled_at")
    await rows(database18, NEWER["reason"], placed.key)
    assert await ledger18.newer_purchases(10) == []


async def test_event_of_a_purchase_in_an_unknown_state_is_refused_for_retry(
    ledger18: Ledger, database18: Database
) -> None:
    """It is not kept, for only a newer version knows what follows from it."""
    newer, other = await place(database18, user="newer"), await place(database18, user="other")
    await rows(database18, STATE)
    await rows(
        database18, "UPDATE vouchers.purchase SET state = 'paused', settled_at = now() WHERE key = %s", newer.key
    )
    with pytest.raises(NewerVersionError):
        await ledger18.receive(newer.event(PaymentEffect.PAID))
    assert await rows(database18, "SELECT event_id FROM vouchers.webhook_event") == []
    assert await ledger18.receive(other.event()) is Received.APPLIED
    assert await ledger18.newer_purchases(10) == [newer.key]
    await rows(database18, "UPDATE vouchers.purchase SET state = 'awaiting_payment' WHERE key = %s", newer.key)


async def test_newer_purchases_are_counted_and_each_is_logged_once(
    ledger18: Ledger, database18: Database, caplog: pytest.LogCaptureFixture
) -> None:
    nobody: Any = None
    passes = PurchaseTasks(ledger18, nobody, nobody, nobody, nobody, nobody, LedgerHealth(), Settings(), lambda _: None)
    newer, other = await two(database18, PurchaseState.PENDING)
    for number, change in ((0, None), (1, newer), (1, None), (2, other)):
        if change is not None:
            await rows(database18, NEWER["reason"], change.key)
        await passes.count_newer()
        assert telemetry.REGISTRY.get_sample_value("voucher_operator_unsupported_purchases") == number
    assert [vars(one)["key"] for one in caplog.records] == [newer.key, other.key]
    await rows(database18, "UPDATE vouchers.purchase SET reason = NULL")
    await passes.count_newer()
    assert telemetry.REGISTRY.get_sample_value("voucher_operator_unsupported_purchases") == 0

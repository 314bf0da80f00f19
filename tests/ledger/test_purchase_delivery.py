"""Which ends of purchases are given out to be delivered, and in which order, when there are more than one look takes.

See also: `test_purchase_compensate`, where one end is followed until it is delivered; `test_plans`, what a look reads.
"""

from testbed.postgres import Database
from tests.ledger.helpers import holding, open_ledger, rows
from tests.ledger.purchase_rows import place
from voucher_operator.ledger.purchase.types import PurchaseState


async def test_undelivered_ends_alternate_between_namespaces(database: Database) -> None:
    """What one cannot have delivered keeps no other waiting; what has just ended comes first."""
    ages = {"big/1": 60, "big/2": 50, "big/3": 40, "big/new": 0, "small/1": 30, "other/1": 90}
    for key, minutes in ages.items():
        placed = await place(database, PurchaseState.COMPLETED, user=key)
        await rows(
            database,
            "UPDATE vouchers.purchase SET key = %s, placed_at = clock_timestamp() - interval '2 hours', "
            "settled_at = clock_timestamp() - interval '100 minutes', checked_at = CASE WHEN %s > 0 THEN "
            "clock_timestamp() - make_interval(mins => %s) END WHERE key = %s",
            key,
            minutes,
            minutes,
            placed.key,
        )
    async with open_ledger(database.runtime_url) as ledger:

        async def undelivered(limit: int) -> set[str]:
            found = await ledger.undelivered_purchases(["small", "big"], 300, limit)
            return {purchase.key for purchase in found}

        assert [await undelivered(2), await undelivered(2), await undelivered(2), await undelivered(2)] == [
            {"big/new", "small/1"},
            {"big/1", "big/2"},
            {"big/3"},
            set(),
        ]


async def test_locked_end_is_left_to_the_next_call(database: Database) -> None:
    placed = [await place(database, PurchaseState.COMPLETED, user=user) for user in "ab"]
    await rows(database, "UPDATE vouchers.purchase SET settled_at = clock_timestamp()")
    async with open_ledger(database.runtime_url) as ledger:
        async with holding(database, "SELECT 1 FROM vouchers.purchase WHERE key = %s FOR UPDATE", placed[0].key):
            found = await ledger.undelivered_purchases(["billing"], 300, 9)
            assert [one.key for one in found] == [placed[1].key]
        assert [one.key for one in await ledger.undelivered_purchases(["billing"], 300, 9)] == [placed[0].key]

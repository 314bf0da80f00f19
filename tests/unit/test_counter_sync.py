"""The counter sync compares thousands of Vouchers without holding the event loop."""

import asyncio
from typing import Any, cast

from voucher_operator.controllers.voucher.counter_sync import CounterSync
from voucher_operator.kube.cache import Cache
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import VoucherCounters, VoucherState
from voucher_operator.settings import Settings

VOUCHERS = 2000


class Parts:
    """What the counter sync works with: a ledger, a feed and a controller in one."""

    def __init__(self) -> None:
        self.voucher_cache = Cache()
        self.compared = 0
        self.most_in_one_turn = 0
        for n in range(VOUCHERS):
            metadata = {"namespace": "shop", "name": f"v-{n}", "uid": f"{n}", "resourceVersion": "1"}
            self.voucher_cache.put({"metadata": metadata})

    async def check(self) -> None: ...

    async def counters(self) -> list[VoucherCounters]:
        active = VoucherState.ACTIVE
        return [VoucherCounters(f"{n}", "shop", f"v-{n}", 1, 1, 0, 10, None, active, False) for n in range(VOUCHERS)]

    def differs(self, *_: Any) -> bool:
        self.compared += 1
        return False

    async def watch(self) -> None:
        """See in each turn of the loop how many were compared since the last one."""
        before = self.compared
        while before < VOUCHERS:
            await asyncio.sleep(0)
            self.most_in_one_turn = max(self.most_in_one_turn, self.compared - before)
            before = self.compared


async def test_other_tasks_run_while_thousands_of_vouchers_are_compared() -> None:
    parts = Parts()
    every_part = cast("Any", parts)
    sync = CounterSync(every_part, LedgerHealth(), every_part, every_part, Settings(), set(), every_part)
    watching = asyncio.create_task(parts.watch())
    await asyncio.sleep(0)
    await sync.sync_all()
    await watching
    assert parts.compared == VOUCHERS
    assert parts.most_in_one_turn <= 100

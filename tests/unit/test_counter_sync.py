"""The counter sync: it reads what has moved, again until it agrees, and never holds the event loop for long."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from voucher_operator.controllers.voucher import counter_sync
from voucher_operator.controllers.voucher.counter_sync import CounterSync
from voucher_operator.kube.cache import Cache
from voucher_operator.ledger.errors import LedgerBusyError
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import LedgerMark, VoucherCounters, VoucherState
from voucher_operator.settings import Settings

VOUCHERS = 2000


def counters_of(n: int) -> VoucherCounters:
    return VoucherCounters(f"{n:05}", "shop", f"v-{n}", 1, 1, 0, 10, None, VoucherState.ACTIVE, False)


class Parts:
    """What the counter sync works with: a ledger, a feed and a controller in one."""

    def __init__(self, vouchers: int = VOUCHERS) -> None:
        self.voucher_cache = Cache()
        self.vouchers = vouchers
        self.compared: list[str] = []
        self.most_in_one_turn = 0
        self.marks: list[LedgerMark | None] = []
        self.moving: list[str] = []
        self.differing: set[str] = set()
        self.requeued: list[str] = []
        self.error: Exception | None = None
        for n in range(vouchers):
            metadata = {"namespace": "shop", "name": f"v-{n}", "uid": f"{n:05}", "resourceVersion": "1"}
            self.voucher_cache.put({"metadata": metadata})

    async def check(self) -> None: ...

    async def moved(self, since: LedgerMark | None, limit: int) -> tuple[LedgerMark, list[str] | None]:
        assert limit > 0
        self.marks.append(since)
        mark = LedgerMark(datetime(2026, 1, 1, tzinfo=UTC), len(self.marks), datetime.now(UTC))
        return mark, None if since is None else self.moving

    async def counters(self, uids: Sequence[str]) -> list[VoucherCounters]:
        if self.error is not None:
            raise self.error
        return [counters_of(int(uid)) for uid in uids if int(uid) < self.vouchers]

    async def counters_page(self, after: str, limit: int) -> list[VoucherCounters]:
        start = int(after) + 1 if after else 0
        return [counters_of(n) for n in range(start, min(start + limit, self.vouchers))]

    def differs(self, key: str, counters: VoucherCounters) -> bool:
        assert key == f"{counters.namespace}/{counters.name}"
        self.compared.append(counters.uid)
        return counters.uid in self.differing

    def requeue_voucher(self, key: str) -> None:
        self.requeued.append(key)

    async def watch(self) -> None:
        """See in each turn of the loop how many were compared since the last one."""
        before = len(self.compared)
        while before < VOUCHERS:
            await asyncio.sleep(0)
            self.most_in_one_turn = max(self.most_in_one_turn, len(self.compared) - before)
            before = len(self.compared)


def sync_with(parts: Parts) -> CounterSync:
    every_part = cast("Any", parts)
    return CounterSync(every_part, LedgerHealth(), every_part, every_part, Settings(), set(), every_part)


async def test_other_tasks_run_while_thousands_of_vouchers_are_compared() -> None:
    parts = Parts()
    watching = asyncio.create_task(parts.watch())
    await asyncio.sleep(0)
    await sync_with(parts).sync_all()
    await watching
    assert len(parts.compared) == VOUCHERS
    assert parts.most_in_one_turn <= 100


async def test_only_what_has_moved_is_compared() -> None:
    parts = Parts(vouchers=50)
    sync = sync_with(parts)
    await sync.sync_all()
    parts.compared.clear()
    await sync.sync_all()
    assert parts.compared == []
    parts.moving = ["00003", "00007"]
    await sync.sync_all()
    assert sorted(parts.compared) == ["00003", "00007"]
    assert [mark and mark.xid for mark in parts.marks] == [None, 1, 2]


async def test_voucher_that_differs_is_read_again_until_it_agrees() -> None:
    """It may have been in backoff, or the status that was written may have been an older one."""
    parts = Parts(vouchers=50)
    sync = sync_with(parts)
    await sync.sync_all()
    parts.moving, parts.differing = ["00003"], {"00003"}
    await sync.sync_all()
    parts.moving = []
    await sync.sync_all()
    assert parts.requeued == ["shop/v-3"] * 2
    parts.differing.clear()
    for _ in range(2):
        parts.compared.clear()
        await sync.sync_all()
    assert parts.compared == []


async def test_voucher_that_was_just_redeemed_is_read_again_until_it_agrees() -> None:
    parts = Parts(vouchers=50)
    sync = sync_with(parts)
    await sync.sync_all()
    parts.differing = {"00004"}
    sync.moved.add("00004")
    await sync.sync_moved()
    await sync.sync_all()
    assert parts.requeued == ["shop/v-4"] * 2


async def test_all_are_compared_every_twelfth_pass() -> None:
    """A row that was deleted by hand leaves no trace of when."""
    parts = Parts(vouchers=50)
    sync = sync_with(parts)
    for _ in range(1 + counter_sync._ALL):
        parts.compared.clear()
        await sync.sync_all()
    assert len(parts.compared) == 50


async def test_what_moved_before_a_failure_is_asked_for_again() -> None:
    parts = Parts(vouchers=50)
    sync = sync_with(parts)
    await sync.sync_all()
    parts.moving, parts.error = ["00003"], LedgerBusyError("a row is held")
    with pytest.raises(LedgerBusyError):
        await sync.sync_all()
    parts.error = None
    await sync.sync_all()
    assert [mark and mark.xid for mark in parts.marks] == [None, 1, 1]


async def test_voucher_that_is_revoked_while_it_differs_is_not_read_for_ever() -> None:
    parts = Parts(vouchers=50)
    sync = sync_with(parts)
    await sync.sync_all()
    parts.moving, parts.differing = ["00049"], {"00049"}
    await sync.sync_all()
    parts.moving, parts.vouchers = [], 49
    await sync.sync_all()
    assert sync._unsettled == set()

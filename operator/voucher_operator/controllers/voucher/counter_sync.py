"""Copies the ledger's counters into the status of Vouchers, and records whether the ledger is available.

It only compares, and puts keys into the queue; the controller writes the status. Each pass reads the counters of the
Vouchers that have changed in the ledger since the last one, whoever changed them: redemptions and edits of the Go
service are found like those of the operator. A Voucher that differs is read again until its status agrees. Every
`_ALL` passes, after a failover, and when much has changed, all Vouchers are read, page by page: a deleted row leaves no
trace. See also: `services.code_index` records the Vouchers that this process has just redeemed; `controllers.resync`
finds missed watch events; `ledger/voucher/voucher_moved.sql` says what has changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from voucher_operator import telemetry
from voucher_operator.controllers.feed import Feed
from voucher_operator.controllers.voucher.controller import VoucherController
from voucher_operator.controllers.voucher.marks import DEPENDS
from voucher_operator.kube.periodic import every
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import is_outage
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import LedgerMark, VoucherCounters
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.settings import Settings

_TICK: Final = 1.0
"""Seconds: the counters of one Voucher are synchronised at most once in this time."""
_UNAVAILABLE_TICK: Final = 0.25
"""Seconds between two checks of a ledger that is unavailable; each waits for a connection for a second or more."""
_ALL: Final = 12
"""Passes from one over all Vouchers to the next."""
_PAGE: Final = 1000
"""Vouchers whose counters are read in one statement."""
_AT_ONCE: Final = 100
"""Vouchers compared in one turn of the event loop: 20,000 that have all changed take seconds, and a renewal of the
Lease must not wait for that long."""


@dataclass(slots=True)
class CounterSync:
    """Periodic tasks; one instance for each term as leader."""

    ledger: Ledger
    health: LedgerHealth
    feed: Feed
    controller: VoucherController
    settings: Settings
    moved: set[str]
    """uids of Vouchers that this process has just redeemed."""
    recovered: Callable[[], Awaitable[None]]
    """Called when the ledger is available again."""
    _mark: LedgerMark | None = None
    """When the last pass began."""
    _passes: int = 0
    """Since the last one over all Vouchers."""
    _unsettled: set[str] = field(default_factory=set)
    """uids of Vouchers that differed when they were last compared."""

    async def run(self) -> None:
        """Run all tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(every(_TICK, self.sync_moved))
            group.create_task(every(self.settings.counter_sync_interval, self.sync_all))
            group.create_task(every(_UNAVAILABLE_TICK, self.sync_unavailable))
            group.create_task(every(self.settings.secret_interval, self.recheck))

    async def sync_moved(self) -> None:
        """Synchronise the counters of the Vouchers that were just redeemed."""
        if not self.moved:
            return
        uids = list(self.moved)
        self.moved.clear()
        try:
            await self._read(uids)
        except LedgerUnavailableError:
            self.moved.update(uids)

    async def sync_all(self) -> None:
        """Compare what has changed with the ledger; requeue all when it becomes unavailable, or available again."""
        try:
            await self.ledger.check()
            mark, moved = await self.ledger.moved(self._mark, _PAGE)
            await self._set_available()
            await self._pass(moved)
            self._mark = mark
        except LedgerUnavailableError as error:
            if not is_outage(error):
                raise
            was_available = self.health.available
            self.health.set_unavailable(error)
            telemetry.LEDGER_UP.set(0)
            if was_available:
                self.feed.requeue_vouchers()

    async def _set_available(self) -> None:
        telemetry.LEDGER_UP.set(1)
        if not self.health.available:
            self.health.set_available()
            for queue in self.feed.queues:
                queue.wake()
            await self.recovered()

    async def _pass(self, moved: Sequence[str] | None) -> None:
        self._passes += 1
        if moved is None or self._passes >= _ALL:
            await self._read_all()
            self._passes = 0
        else:
            await self._read([*{*moved, *self._unsettled}])

    async def _read(self, uids: Sequence[str]) -> None:
        """Compare these Vouchers; those that have no counters any more are settled."""
        for start in range(0, len(uids), _PAGE):
            page = uids[start : start + _PAGE]
            counters = await self.ledger.counters(page)
            await self._compare(counters)
            self._unsettled.difference_update(set(page).difference(one.uid for one in counters))

    async def _read_all(self) -> None:
        self._unsettled.clear()
        page = await self.ledger.counters_page("", _PAGE)
        while page:
            await self._compare(page)
            page = await self.ledger.counters_page(page[-1].uid, _PAGE)

    async def sync_unavailable(self) -> None:
        """Try again soon while the ledger is unavailable: all resources wait for it."""
        if not self.health.available:
            await self.sync_all()

    async def _compare(self, counters: Sequence[VoucherCounters]) -> None:
        for number, counter in enumerate(counters, 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            key = self.feed.voucher_cache.key_of_uid(counter.uid)
            if key is not None and self.controller.differs(key, counter):
                self._unsettled.add(counter.uid)
                self.feed.requeue_voucher(key)
            else:
                self._unsettled.discard(counter.uid)

    async def recheck(self) -> None:
        """Requeue the Vouchers that depend on another object: a Secret, or another owner of the code."""
        for key in self.feed.voucher_cache.marked(DEPENDS):
            self.feed.requeue_voucher(key)

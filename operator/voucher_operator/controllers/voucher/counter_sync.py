"""Copies the ledger's counters into the status of Vouchers, and records whether the ledger is available.

It only compares, and puts keys into the queue; the controller writes the status. One query reads the counters of all
Vouchers, so redemptions and edits of the Go service are found like those of the operator. See also:
`services.code_index` records the Vouchers that this process has just redeemed; `controllers.resync` finds missed watch
events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from voucher_operator import telemetry
from voucher_operator.controllers.feed import Feed
from voucher_operator.controllers.voucher.controller import VoucherController
from voucher_operator.kube.cache import key_of
from voucher_operator.kube.client import Body
from voucher_operator.kube.periodic import every
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import is_outage
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import VoucherCounters
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.settings import Settings

_TICK: Final = 1.0
"""Seconds: the counters of one Voucher are synchronised at most once in this time."""
_UNAVAILABLE_TICK: Final = 0.25
"""Seconds between two checks of a ledger that is unavailable; each waits for a connection for a second or more."""
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
            await self._compare(await self.ledger.counters(uids))
        except LedgerUnavailableError:
            self.moved.update(uids)

    async def sync_all(self) -> None:
        """Compare all Vouchers with the ledger; requeue them when it becomes unavailable, or available again."""
        try:
            await self.ledger.check()
            counters = await self.ledger.counters()
        except LedgerUnavailableError as error:
            if not is_outage(error):
                raise
            was_available = self.health.available
            self.health.set_unavailable(error)
            telemetry.LEDGER_UP.set(0)
            if was_available:
                self.feed.requeue_vouchers()
            return
        telemetry.LEDGER_UP.set(1)
        if not self.health.available:
            self.health.set_available()
            for queue in self.feed.queues:
                queue.wake()
            await self.recovered()
        await self._compare(counters)

    async def sync_unavailable(self) -> None:
        """Try again soon while the ledger is unavailable: all resources wait for it."""
        if not self.health.available:
            await self.sync_all()

    async def _compare(self, counters: Sequence[VoucherCounters]) -> None:
        for number, counter in enumerate(counters, 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            body = self.feed.voucher_cache.by_uid(counter.uid)
            if body is not None and self.controller.differs(body, counter):
                self.feed.requeue_voucher(key_of(body))

    async def recheck(self) -> None:
        """Requeue the Vouchers that depend on another object: a Secret, or another owner of the code."""
        for key in self.feed.voucher_cache:
            body = self.feed.voucher_cache.get(key)
            if body is not None and _depends_on_others(body):
                self.feed.requeue_voucher(key)


def _depends_on_others(body: Body) -> bool:
    conditions: list[dict[str, Any]] = body["status"].get("conditions", [])
    return "codeFrom" in body["spec"] or any(condition["type"] == "Stalled" for condition in conditions)

"""Purchases whose next step no watch event starts: payments, lost webhooks, orders without their Redemption.

It decides nothing: the ledger remembers what is still to be done, and here it is done, whatever became of the
Redemption, of the process that began, or of the webhook. Each purchase is taken by itself: a failure of one waits for
the next run and delays no other. See also: `controller` does the same for a Redemption that is there; `process.run`
runs this while this replica leads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from voucher_operator import telemetry
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.purchase import status as purchase_status
from voucher_operator.controllers.purchase.controller import PurchaseController, asks_for
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ForbiddenError
from voucher_operator.kube.periodic import every
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import ApiError, OperatorError
from voucher_operator.resources.keys import Key
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_OPEN: Final = 1000
"""Pending purchases that one pass looks at, the oldest first."""
_ENDED: Final = 500
_STALE: Final = 100
_AT_ONCE: Final = 16
_TIME: Final = 10.0
"""Seconds that one purchase may take of a pass. The ledger comes first in all that is done and needs no more; a payment
processor that does not answer keeps no other."""
_LOOK_UP: Final = 30.0
_NEWER: Final = 1000
"""Purchases that only a newer version understands, as far as they are counted."""


@dataclass(slots=True)
class PurchaseTasks:
    """Periodic tasks; one instance for each time of leading."""

    ledger: Ledger
    api: KubeApi
    cache: Cache
    """Unfinished Redemptions."""
    queue: WorkQueue
    purchases: PurchaseController
    checkout: Checkout
    health: LedgerHealth
    settings: Settings
    notify: Callable[[Body], None]
    """Takes note of a Redemption that the watch has not shown."""
    _newer: set[Key] = field(default_factory=set)
    """Keys of purchases that only a newer version understands: each is logged once."""

    async def run(self) -> None:
        """Run all tasks until cancelled."""
        try:
            await self._run()
        finally:
            # Another replica counts them from here on.
            telemetry.NEWER_PURCHASES.set(0)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(every(self.settings.counter_sync_interval, self.deliver))
            group.create_task(every(self.settings.counter_sync_interval, self.sweep))
            group.create_task(every(min(self.settings.session_lookup_interval, _LOOK_UP), self.look_up))
            group.create_task(every(_LOOK_UP, self.count_newer))

    async def deliver(self) -> None:
        """Bring each end of a purchase to its Redemption and its Organization, and have the ledger know that."""
        if not self.health.available:
            return
        await self._record_delivered()
        pause, namespaces = self.settings.backoff_max, self.settings.namespaces
        await self._each(self._deliver, await self.ledger.undelivered_purchases(namespaces, pause, _ENDED), _TIME)
        await self._record_delivered()

    async def sweep(self) -> None:
        """Go on with every purchase whose customer has no checkout yet, or take it back."""
        if self.health.available:
            await self._each(self._go_on, await self.ledger.open_purchases(_OPEN), _TIME)

    async def look_up(self) -> None:
        """Ask the payment processor for checkouts of which no webhook has told for long."""
        if not self.health.available or self.checkout.fault is not None:
            return
        stale = await self.ledger.purchases_to_check(self.settings.session_lookup_interval, _STALE)
        await self._each(self._look_up, stale, None)

    async def count_newer(self) -> None:
        """Count the purchases that these passes leave to a newer version, and log each once."""
        if not self.health.available:
            return
        found = set(await self.ledger.newer_purchases(_NEWER))
        telemetry.NEWER_PURCHASES.set(len(found))
        for key in sorted(found - self._newer):
            extra = {"resource": "purchase", "key": key, "reason": "NewerVersion"}
            log.warning("only a newer version of the operator understands a purchase: upgrade this one", extra=extra)
        self._newer = found

    async def _each(
        self,
        work: Callable[[Purchase], Awaitable[None]],
        purchases: Iterable[Purchase],
        limit: float | None,
    ) -> None:
        """Do something for each purchase, several at once; `limit` is for each, in seconds, or None."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(purchase: Purchase) -> None:
            async with slots:
                try:
                    async with asyncio.timeout(limit):
                        await work(purchase)
                except (OperatorError, ApiError, TimeoutError) as error:
                    _postponed(purchase, error)
                except Exception:
                    log.exception("will be tried again", extra=_extra(purchase, "InternalError"))

        async with asyncio.TaskGroup() as group:
            for purchase in purchases:
                group.create_task(one(purchase))

    async def _look_up(self, purchase: Purchase) -> None:
        await self.checkout.look_up(purchase)

    async def _record_delivered(self) -> None:
        """Have the ledger remember it before it is forgotten here."""
        if ends := dict(self.purchases.delivered):
            await self.ledger.record_delivered(ends)
            for key, end in ends.items():
                if self.purchases.delivered.get(key) == end:
                    del self.purchases.delivered[key]

    async def _deliver(self, purchase: Purchase) -> None:
        known = self.cache.get(purchase.key)
        try:
            body = known or await self._live(purchase)
        except ForbiddenError:
            # Its namespace is gone, or taken from us: what was paid for is owed all the same.
            await self._organize(purchase)
            raise
        if body is None or not asks_for(body, purchase):
            if await self._organize(purchase) and purchase.settled_at is not None:
                self.purchases.delivered[purchase.key] = purchase.settled_at
        elif not body.get("status", {}).get("finished"):
            self.notify(body)
            self.queue.add(purchase.key)
        elif not _matches(body, purchase):
            self.purchases.reopen(body, purchase.key)
            self.queue.add(purchase.key)
        elif purchase.settled_at is not None:
            self.purchases.delivered[purchase.key] = purchase.settled_at

    async def _organize(self, purchase: Purchase) -> bool:
        """Make the Organization of an order that no Redemption asks for any more; whether nothing is left to do."""
        if purchase.state is not PurchaseState.COMPLETED:
            return True
        standing = await self.purchases.organizations.ensure(purchase)
        if not standing.settled:
            log.info(
                "waits for its Organization", extra=_extra(purchase, standing.reason) | {"detail": standing.message}
            )
        return standing.settled

    async def _go_on(self, purchase: Purchase) -> None:
        known = self.cache.get(purchase.key)
        if purchase.overdue:
            # Whatever became of its Redemption, of its code, and of whoever else was to do it.
            await self.checkout.advance(purchase)
            return
        if known is not None and asks_for(known, purchase):
            if not self.queue.knows(purchase.key):
                self.queue.add(purchase.key)
            return
        try:
            body = await self._live(purchase) if self._is_ours(purchase.key) else known
            gone = body is None and self._is_ours(purchase.key)
        except ApiError:
            body, gone = known, False
        if gone:
            await self.checkout.abandon(purchase.key)
        elif body is not None and known is None and not body.get("status", {}).get("finished"):
            self.notify(body)

    def _is_ours(self, key: Key) -> bool:
        """Whether its Redemption may be looked at: another operator may use the same ledger."""
        return key.namespace in self.settings.namespaces

    async def _live(self, purchase: Purchase) -> Body | None:
        if purchase.key.namespace is None:
            return None
        return await self.api.get(REDEMPTION, purchase.key.namespace, purchase.key.name)


def _matches(body: Body, purchase: Purchase) -> bool:
    """Whether a finished status says how the purchase stands, and why."""
    with_code = not body["spec"].keys().isdisjoint(("code", "codeFrom", "voucherRef"))
    return purchase_status.matches(body["status"], purchase, with_code=with_code)


def _postponed(purchase: Purchase, error: Exception) -> None:
    reason = error.reason if isinstance(error, OperatorError) else type(error).__name__.removesuffix("Error")
    log.info("will be tried again", extra=_extra(purchase, reason) | {"detail": str(error)})


def _extra(purchase: Purchase, reason: str) -> dict[str, str]:
    return {"resource": "purchase", "key": purchase.key, "reason": reason}

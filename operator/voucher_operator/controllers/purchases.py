"""What no watch event tells of purchases: payments, lost webhooks, and orders that nobody asks for any more.

It decides nothing: the ledger remembers what is still to be done, and here somebody comes by and does it, whatever
became of the Redemption, of the process that began, or of the webhook. Neighbours: `orders` does the same for a
Redemption that is there; `passes` repeats; `process.runner` runs it while this replica leads.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from voucher_operator.checkout.saga import Checkout
from voucher_operator.controllers import kube
from voucher_operator.controllers.cache import Cache
from voucher_operator.controllers.kube import ApiUnavailableError, Body, KubeApi, RefusedError
from voucher_operator.controllers.orders import OrderController
from voucher_operator.controllers.outage import Outage
from voucher_operator.controllers.passes import every
from voucher_operator.controllers.queue import WorkQueue
from voucher_operator.controllers.transitions import cause_of, target
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase_types import Purchase, PurchaseState
from voucher_operator.resources.errors import OperatorError
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_OPEN: Final = 1000
"""Pending purchases that one pass looks at, the oldest first."""
_STALE: Final = 100
_AT_ONCE: Final = 8
_BEFORE: Final = timedelta(minutes=1)
"""How far back the first pass looks: what happened while nobody led. Unfinished Redemptions are found anyway."""
_OVERLAP: Final = timedelta(seconds=60)
"""For so long a change is remembered as seen: the ledger tells of the last ones again."""
_LOOK_UP: Final = 30.0


@dataclass(slots=True)
class PurchasePasses:
    """The periodic passes over purchases; one instance for each time of leading."""

    ledger: Ledger
    api: KubeApi
    cache: Cache
    """Unfinished Redemptions."""
    queue: WorkQueue
    orders: OrderController
    checkout: Checkout
    outage: Outage
    settings: Settings
    tell: Callable[[Body], None]
    """Takes note of a Redemption that the watch has not told of."""
    _after: datetime | None = None
    _seen: dict[str, datetime] = field(default_factory=dict)
    _owed: dict[str, Purchase] = field(default_factory=dict)
    """Completed orders without a Redemption, whose Organization is not there yet."""

    async def run(self) -> None:
        """Run all passes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(every(self.settings.project_interval, self.follow))
            group.create_task(every(self.settings.project_interval, self.sweep))
            group.create_task(every(min(self.settings.session_lookup_interval, _LOOK_UP), self.look_up))

    async def follow(self) -> None:
        """Bring to each Redemption what became of its purchase, whoever brought that about."""
        if self.outage.lasts:
            return
        if self._after is None:
            self._after = (await self.ledger.info()).now - _BEFORE
        for key, at in await self.ledger.changed_purchases(self._after):
            if self._seen.get(key) != at:
                with contextlib.suppress(RefusedError):  # its namespace is gone, or taken from us
                    await self._changed(key)
                self._seen[key] = at
            self._after = max(self._after, at)
        horizon = self._after - _OVERLAP
        self._seen = {key: at for key, at in self._seen.items() if at > horizon}
        for purchase in list(self._owed.values()):
            await self._organize(purchase)

    async def sweep(self) -> None:
        """Go on with every purchase whose customer has no checkout yet, or take it back."""
        if self.outage.lasts:
            return
        for purchase in await self.ledger.open_purchases(_OPEN):
            try:
                await self._go_on(purchase)
            except OperatorError as error:
                _postponed(purchase, error)

    async def look_up(self) -> None:
        """Ask the payment processor for checkouts of which no webhook has told for long."""
        if self.outage.lasts or self.checkout.fault is not None:
            return
        stale = await self.ledger.stale_sessions(self.settings.session_lookup_interval, _STALE)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(purchase: Purchase) -> None:
            async with slots:
                try:
                    await self.checkout.look_up(purchase)
                except OperatorError as error:
                    _postponed(purchase, error)

        async with asyncio.TaskGroup() as group:
            for purchase in stale:
                group.create_task(one(purchase))

    async def _changed(self, key: str) -> None:
        if self.cache.get(key) is not None:
            self.queue.add(key)
            return
        if not self._is_ours(key):
            return
        purchase = await self.ledger.purchase_of(key)
        if purchase is None or self.orders.finished.get(key) is purchase.state:
            return
        body = await self._live(purchase)
        if body is None or body["metadata"]["uid"] != purchase.uid:
            await self._organize(purchase)
        elif not body.get("status", {}).get("finished"):
            self.tell(body)
        elif not _says(body, purchase):
            self.orders.reopen(body, key)
            self.queue.add(key)

    async def _go_on(self, purchase: Purchase) -> None:
        known = self.cache.get(purchase.key)
        if known is not None and known["metadata"]["uid"] == purchase.uid:
            # One that backs off is hurried only when its time is up.
            if not self.queue.knows(purchase.key) or (purchase.overdue and self.queue.waits(purchase.key)):
                self.queue.add(purchase.key)
            return
        try:
            body = await self._live(purchase) if self._is_ours(purchase.key) else known
            gone = body is None and self._is_ours(purchase.key)
        except ApiUnavailableError:
            body, gone = known, False
        if gone:
            await self.checkout.abandon(purchase.key)
        elif purchase.overdue:
            # Whatever became of its Redemption, and whoever else was to do it.
            await self.checkout.advance(purchase)
        elif body is not None and known is None and not body.get("status", {}).get("finished"):
            self.tell(body)

    def _is_ours(self, key: str) -> bool:
        """Whether its Redemption may be looked at: another operator may use the same ledger."""
        return key.split("/")[0] in self.settings.namespaces

    async def _live(self, purchase: Purchase) -> Body | None:
        namespace, name = purchase.key.split("/")
        return await self.api.get(kube.REDEMPTIONS, namespace, name)

    async def _organize(self, purchase: Purchase) -> None:
        """Make the Organization of an order that was paid for after its Redemption had gone."""
        self._owed.pop(purchase.key, None)
        if purchase.state is not PurchaseState.COMPLETED:
            return
        standing = await self.orders.organizations.ensure(purchase)
        if not standing.settled and standing.ready is not True:
            self._owed[purchase.key] = purchase


def _says(body: Body, purchase: Purchase) -> bool:
    """Whether a finished status says how the purchase stands."""
    with_code = not body["spec"].keys().isdisjoint(("code", "codeFrom", "voucherRef"))
    return bool(body["status"].get("state") == target(cause_of(purchase, with_code=with_code)))


def _postponed(purchase: Purchase, error: OperatorError) -> None:
    extra = {"resource": "purchase", "key": purchase.key, "reason": error.reason, "detail": error.message}
    log.info("will be tried again", extra=extra)

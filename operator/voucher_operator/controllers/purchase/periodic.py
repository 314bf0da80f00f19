"""Periodic tasks for purchases whose next step no watch event starts: payments, lost webhooks, deleted Redemptions.

The ledger records what is left to do, and these tasks do it, also when the Redemption was deleted, the process that
started it has ended, or a webhook was lost. Each purchase is handled separately: after a failure it is retried in the
next run, and the others are not delayed. See also: `controller` does the same for an existing Redemption; `process.run`
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
from voucher_operator.kube.fairness import FairSlots
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

_MAX_PENDING: Final = 1000
"""Pending purchases in one run, the oldest first."""
_MAX_UNDELIVERED: Final = 500
_MAX_LOOKUPS: Final = 100
_CONCURRENCY: Final = 16
_STEP_TIMEOUT: Final = 10.0
"""Seconds for one purchase in one run. The ledger's part comes first and takes less; a payment processor that does not
respond does not block the others."""
_LOOKUP_INTERVAL: Final = 30.0
_MAX_NEWER: Final = 1000
"""Upper limit of the count of purchases that need a newer version."""


@dataclass(slots=True)
class PurchaseTasks:
    """Periodic tasks; one instance for each term as leader."""

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
    """Adds a Redemption that the watch has not shown to the cache and the queue."""
    _newer: set[Key] = field(default_factory=set)
    """Keys of purchases that need a newer version: each is logged once."""

    async def run(self) -> None:
        """Run the tasks that read and write Redemptions, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(every(self.settings.counter_sync_interval, self.deliver))
            group.create_task(every(self.settings.counter_sync_interval, self.sweep))

    async def run_payments(self) -> None:
        """Run the tasks that need the ledger and the payment processor only, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(every(min(self.settings.session_lookup_interval, _LOOKUP_INTERVAL), self.look_up))
                group.create_task(every(_LOOKUP_INTERVAL, self.count_newer))
        finally:
            # The next leader counts them.
            telemetry.UNSUPPORTED_PURCHASES.set(0)

    async def deliver(self) -> None:
        """Write each final state into its Redemption, create its Organization, and record both in the ledger."""
        if not self.health.available:
            return
        await self._record_delivered()
        pause, namespaces = self.settings.backoff_max, self.settings.namespaces
        undelivered = await self.ledger.undelivered_purchases(namespaces, pause, _MAX_UNDELIVERED)
        await self._each(self._deliver, undelivered, _STEP_TIMEOUT)
        await self._record_delivered()

    async def sweep(self) -> None:
        """Advance every purchase without a checkout, or roll it back."""
        if self.health.available:
            await self._each(self._advance, await self.ledger.open_purchases(_MAX_PENDING), _STEP_TIMEOUT)

    async def look_up(self) -> None:
        """Look up checkouts at the payment processor for which no webhook has arrived for a long time."""
        if not self.health.available or self.checkout.fault is not None:
            return
        stale = await self.ledger.purchases_to_check(self.settings.session_lookup_interval, _MAX_LOOKUPS)
        await self._each(self._look_up, stale, None)

    async def count_newer(self) -> None:
        """Count the purchases that need a newer version, and log each once."""
        if not self.health.available:
            return
        found = set(await self.ledger.newer_purchases(_MAX_NEWER))
        telemetry.UNSUPPORTED_PURCHASES.set(len(found))
        for key in sorted(found - self._newer):
            extra = {"resource": "purchase", "key": key, "reason": "NewerVersion"}
            log.warning("a purchase needs a newer version of the operator: upgrade the operator", extra=extra)
        self._newer = found

    async def _each(
        self,
        work: Callable[[Purchase], Awaitable[None]],
        purchases: Iterable[Purchase],
        limit: float | None,
    ) -> None:
        """Call `work` for each purchase, several concurrently and in turn for the namespaces and customers.

        `limit` is the timeout of each, in seconds, or None.
        """
        slots = FairSlots(_CONCURRENCY)

        async def one(purchase: Purchase) -> None:
            async with slots.held((purchase.key.namespace or "", purchase.user_id)):
                try:
                    async with asyncio.timeout(limit):
                        await work(purchase)
                except (OperatorError, ApiError, TimeoutError) as error:
                    _log_retry(purchase, error)
                except Exception:
                    log.exception("will be retried", extra=_extra(purchase, "InternalError"))

        async with asyncio.TaskGroup() as group:
            for purchase in purchases:
                group.create_task(one(purchase))

    async def _look_up(self, purchase: Purchase) -> None:
        await self.checkout.look_up(purchase)

    async def _record_delivered(self) -> None:
        """Record deliveries in the ledger, then drop them here."""
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
            # Its namespace is deleted, or the permission is missing: a paid order still gets its Organization.
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
        """Create the Organization of an order without a Redemption; return whether nothing is left to do."""
        if purchase.state is not PurchaseState.COMPLETED:
            return True
        status = await self.purchases.organizations.ensure(purchase)
        if not status.settled:
            log.info("waiting for the Organization", extra=_extra(purchase, status.reason) | {"detail": status.message})
        return status.settled

    async def _advance(self, purchase: Purchase) -> None:
        known = self.cache.get(purchase.key)
        if purchase.overdue:
            # Whatever the state of its Redemption and its code.
            await self.checkout.advance(purchase)
            return
        if known is not None and asks_for(known, purchase):
            if not self.queue.knows(purchase.key):
                self.queue.add(purchase.key)
            return
        try:
            body = await self._live(purchase) if self._is_served(purchase.key) else known
            deleted = body is None and self._is_served(purchase.key)
        except ApiError:
            body, deleted = known, False
        if deleted:
            await self.checkout.cancel_pending(purchase.key)
        elif body is not None and known is None and not body.get("status", {}).get("finished"):
            self.notify(body)

    def _is_served(self, key: Key) -> bool:
        """Whether this operator serves the namespace: another operator may use the same ledger."""
        return key.namespace in self.settings.namespaces

    async def _live(self, purchase: Purchase) -> Body | None:
        if purchase.key.namespace is None:
            return None
        return await self.api.get(REDEMPTION, purchase.key.namespace, purchase.key.name)


def _matches(body: Body, purchase: Purchase) -> bool:
    """Whether a finished status has the state and the reason of the purchase."""
    with_code = not body["spec"].keys().isdisjoint(("code", "codeFrom", "voucherRef"))
    return purchase_status.matches(body["status"], purchase, with_code=with_code)


def _log_retry(purchase: Purchase, error: Exception) -> None:
    reason = error.reason if isinstance(error, OperatorError) else type(error).__name__.removesuffix("Error")
    log.info("will be retried", extra=_extra(purchase, reason) | {"detail": str(error)})


def _extra(purchase: Purchase, reason: str) -> dict[str, str]:
    return {"resource": "purchase", "key": purchase.key, "reason": reason}

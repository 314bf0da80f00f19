"""What no watch event tells.

Counters that moved, rows that drifted, Secrets that changed, owners that are gone, finished Redemptions whose time is
up, and objects that a deaf watch never mentioned.

It decides nothing: it compares and puts keys into the queues, where the reconcilers do what they always do. The
ledger's query is one for all vouchers, so the Go service's redemptions and edits are seen like our own. See also:
`redemptions` hints at vouchers that it has just redeemed; `process.run` runs the loops while this replica leads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from voucher_operator import telemetry
from voucher_operator.controllers.voucher.controller import VoucherController
from voucher_operator.controllers.watch import Feed
from voucher_operator.kube import client as kube
from voucher_operator.kube.cache import Cache, is_older, key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ConflictError, ForbiddenError, NotFoundError, is_authorization
from voucher_operator.kube.periodic import every
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import LedgerBusyError
from voucher_operator.ledger.types import VoucherCounters, VoucherOwner
from voucher_operator.resources.errors import ApiError, LedgerUnavailableError
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_TICK = 1.0
"""Counters of one voucher are projected at most once in so many seconds."""
_UNFINISHED = "status.finished!=true"
_EXPIRING = "status.finished=true,spec.ttlSecondsAfterFinished!="
"""Those that say when to delete them; the others are never read again."""


@dataclass(slots=True)
class CounterSync:
    """The periodic passes; one instance for each time of leading."""

    ledger: Ledger
    kube: KubeApi
    feed: Feed
    controller: VoucherController
    settings: Settings
    hints: set[str]
    """uids of vouchers that this process has just redeemed."""

    async def run(self) -> None:
        """Run all passes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(every(_TICK, self.sync_hinted))
            group.create_task(every(self.settings.counter_sync_interval, self.sync_all))
            group.create_task(every(self.settings.secret_interval, self.recheck))
            group.create_task(every(self.settings.resync_interval, self.resync))
            group.create_task(every(min(self.settings.resync_interval, 60.0), self.expire_finished))

    async def sync_hinted(self) -> None:
        """Bring up to date the counters of the vouchers that were just redeemed."""
        if not self.hints:
            return
        uids = list(self.hints)
        self.hints.clear()
        try:
            self._compare(await self.ledger.counters(uids))
        except LedgerUnavailableError:
            self.hints.update(uids)

    async def sync_all(self) -> None:
        """Compare all vouchers with the ledger; tell them when it cannot be asked, and when it can be again."""
        outage = self.controller.outage
        try:
            counters = await self.ledger.counters()
        except LedgerUnavailableError as error:
            known = outage.lasts
            outage.begin(error)
            telemetry.LEDGER_UP.set(0)
            if not known:
                self._enqueue_vouchers()
            return
        telemetry.LEDGER_UP.set(1)
        if outage.lasts:
            outage.end()
            for queue in self.feed.queues:
                queue.wake()
            await self.resync()
        self._compare(counters)

    def _compare(self, counters: Sequence[VoucherCounters]) -> None:
        for counter in counters:
            body = self.feed.voucher_cache.by_uid(counter.uid)
            if body is not None and self.controller.differs(body, counter):
                self._add(key_of(body))

    def _add(self, key: str) -> None:
        if not self.feed.voucher_queue.waits(key):
            self.feed.voucher_queue.add(key)

    def _enqueue_vouchers(self) -> None:
        for key in self.feed.voucher_cache:
            self._add(key)

    async def recheck(self) -> None:
        """Reconcile the vouchers that a change elsewhere may concern: a Secret, another owner of the code."""
        for key in self.feed.voucher_cache:
            body = self.feed.voucher_cache.get(key)
            if body is not None and _depends_on_others(body):
                self._add(key)

    async def resync(self) -> None:
        """List all: what the watch has missed, ledger rows whose Voucher is gone, and each Voucher once more."""
        try:
            owners = await self.ledger.owners()
        except LedgerUnavailableError:
            owners = []
        # The rows are read before the resources: a Voucher comes before its row, so a row without one is an orphan.
        alive: set[str] = set()

        async def list_vouchers(namespace: str) -> None:
            alive.update(await self._relist(namespace, kube.VOUCHERS, "", self.feed.voucher_cache, self.feed.voucher))

        async def list_redemptions(namespace: str) -> None:
            tell = self.feed.redemption
            await self._relist(namespace, kube.REDEMPTIONS, _UNFINISHED, self.feed.redemption_cache, tell)

        # Apart: a namespace that is gone took the right to list its Redemptions with it, but not that of Vouchers.
        listed = await self._in_each_namespace(list_vouchers)
        await self._in_each_namespace(list_redemptions)
        self._enqueue_vouchers()
        for owner in owners:
            if owner.uid not in alive and owner.namespace in listed:
                await self._revoke_orphan(owner)

    async def _revoke_orphan(self, owner: VoucherOwner) -> None:
        try:
            await self.controller.revoke_orphan(owner)
        except LedgerBusyError as error:
            # Somebody else has this row for a moment: the other orphans need not wait for the next pass.
            extra = {"resource": "Voucher", "key": f"{owner.namespace}/{owner.name}", "reason": str(error)}
            log.info("will be tried again", extra=extra)

    async def _relist(
        self, namespace: str, plural: str, selector: str, cache: Cache, tell: Callable[..., None]
    ) -> set[str]:
        """Bring a cache in line with a list of one namespace; returns the uids that are there."""
        before = {key: body["metadata"]["uid"] for key in cache if (body := cache.get(key)) and _is_in(body, namespace)}
        there: set[str] = set()
        async for page in self.kube.pages(plural, namespace, selector):
            there.update(body["metadata"]["uid"] for body in page)
            self._missed(page, cache.get, tell)
        for key, uid in before.items():
            now = cache.get(key)
            if uid not in there and now is not None and now["metadata"]["uid"] == uid:
                tell(now, gone=True)
        return there

    async def _in_each_namespace(self, work: Callable[[str], Awaitable[None]]) -> set[str]:
        """Do the work in every namespace; return those where all of it was done: one that fails stops no other."""
        done = set()
        for namespace in self.settings.namespaces:
            try:
                await work(namespace)
            except ApiError as error:
                extra = {"resource": "namespace", "key": namespace, "reason": str(error)}
                log.info("namespace passed over", extra=extra)
            else:
                done.add(namespace)
        if done:
            telemetry.API_LIVENESS.now()
        return done

    def _missed(self, page: list[Body], known: Callable[[str], Body | None], tell: Callable[..., None]) -> None:
        for body in page:
            seen = known(key_of(body))
            if seen is None or seen["metadata"]["uid"] != body["metadata"]["uid"] or is_older(seen, body):
                telemetry.WATCH_MISSED.inc()
                tell(body, gone=False)

    async def expire_finished(self) -> None:
        """Delete finished Redemptions whose `ttlSecondsAfterFinished` has passed, by the ledger's clock."""
        try:
            now = (await self.ledger.info()).now
        except LedgerUnavailableError:
            return

        async def delete_expired(namespace: str) -> None:
            async for page in self.kube.pages(kube.REDEMPTIONS, namespace, _EXPIRING):
                for body in page:
                    if _expired(body, now):
                        await self._delete(body)

        await self._in_each_namespace(delete_expired)

    async def _delete(self, body: Body) -> None:
        metadata = body["metadata"]
        try:
            await self.kube.delete(kube.REDEMPTIONS, metadata["namespace"], metadata["name"], metadata["uid"])
        except (ConflictError, NotFoundError):
            return
        except ForbiddenError as error:
            if is_authorization(error):
                raise  # the same for all
            key = f"{metadata['namespace']}/{metadata['name']}"
            log.info("not deleted", extra={"resource": "Redemption", "key": key, "reason": str(error)})


def _depends_on_others(body: Body) -> bool:
    conditions: list[dict[str, Any]] = body["status"].get("conditions", [])
    return "codeFrom" in body["spec"] or any(condition["type"] == "Stalled" for condition in conditions)


def _is_in(body: Body, namespace: str) -> bool:
    return bool(body["metadata"]["namespace"] == namespace)


def _expired(body: Body, now: datetime) -> bool:
    ttl = body["spec"].get("ttlSecondsAfterFinished")
    finished_at = body.get("status", {}).get("finishedAt")
    if ttl is None or finished_at is None or "deletionTimestamp" in body["metadata"]:
        return False
    return datetime.fromisoformat(finished_at) + timedelta(seconds=ttl) <= now

"""Lists all resources periodically: finds missed watch events, ledger rows without a Voucher, and expired Redemptions.

It only compares, and puts keys into the queues. A namespace that cannot be listed does not affect the others. See
also: `feed`; `voucher.controller` revokes; `process.run` runs it while this replica leads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from voucher_operator import telemetry
from voucher_operator.controllers.feed import Feed
from voucher_operator.controllers.kinds import REDEMPTION, UNFINISHED, VOUCHER
from voucher_operator.controllers.voucher.controller import FINALIZER, VoucherController
from voucher_operator.kube.cache import Cache, key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, is_authorization
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.kube.periodic import every
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import LedgerBusyError, PoolFullError
from voucher_operator.ledger.types import VoucherOwner
from voucher_operator.resources import conditions
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import ApiError, LedgerUnavailableError
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_EXPIRING: Final = "status.finished=true,spec.ttlSecondsAfterFinished!="
"""Finished Redemptions with a TTL; the others are never read again."""
_EXPIRY_INTERVAL: Final = 60.0


@dataclass(slots=True)
class Resync:
    """Periodic tasks; one instance for each term as leader."""

    ledger: Ledger
    kube: KubeApi
    feed: Feed
    vouchers: VoucherController
    settings: Settings

    async def run(self) -> None:
        """Run all tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(every(self.settings.resync_interval, self.resync))
            group.create_task(every(min(self.settings.resync_interval, _EXPIRY_INTERVAL), self.expire_finished))

    async def resync(self) -> None:
        """List all resources: process missed watch events, revoke orphaned codes, reconcile each Voucher."""
        try:
            owners = await self.ledger.owners()
        except LedgerUnavailableError:
            owners = []
        # The rows are read before the resources: a Voucher exists before its row, so a row without one is an orphan.
        alive: set[str] = set()

        async def list_vouchers(namespace: str) -> None:
            alive.update(await self._relist(namespace, VOUCHER, "", self.feed.voucher_cache, self.feed.voucher))

        async def list_redemptions(namespace: str) -> None:
            notify = self.feed.redemption
            await self._relist(namespace, REDEMPTION, UNFINISHED, self.feed.redemption_cache, notify)

        # Separately: with a namespace the permission to list its Redemptions is deleted, but not that for Vouchers.
        listed = await self._in_each_namespace(list_vouchers)
        await self._in_each_namespace(list_redemptions)
        self.feed.requeue_vouchers()
        owning = {owner.uid for owner in owners}
        for owner in owners:
            if owner.uid not in alive and owner.namespace in listed and not self._is_adopted(owner, owning):
                await self._revoke_orphan(owner)

    def _is_adopted(self, owner: VoucherOwner, owning: Collection[str]) -> bool:
        """Whether a Voucher of the same name takes over the code when it is put, as after a restore from a backup."""
        key = f"{owner.namespace}/{owner.name}"
        body = self.feed.voucher_cache.get(key)
        if body is None or "deletionTimestamp" in body["metadata"] or body["metadata"]["uid"] in owning:
            return False
        # In a Secret it is not known here, unless it was read, and is another Voucher's.
        code = body["spec"].get("code") or self.vouchers.wanted_code(key)
        return code is None or normal_code(code) == normal_code(owner.code)

    async def _revoke_orphan(self, owner: VoucherOwner) -> None:
        try:
            await self.vouchers.revoke_orphan(owner)
        except (LedgerBusyError, PoolFullError) as error:
            # Another session has locked this row, or no connection was free: the others are revoked all the same.
            extra = {"resource": "Voucher", "key": f"{owner.namespace}/{owner.name}", "reason": str(error)}
            log.info("will be retried", extra=extra)

    async def _relist(
        self, namespace: str, kind: ResourceKind, selector: str, cache: Cache, notify: Callable[..., None]
    ) -> set[str]:
        """Compare a cache with a list of one namespace; return the uids of existing objects that are not released."""
        before = {seen.uid for key in cache if key.startswith(f"{namespace}/") and (seen := cache.version(key))}
        present: set[str] = set()
        kept: set[str] = set()
        async for page in self.kube.pages(kind, namespace, selector):
            present.update(body["metadata"]["uid"] for body in page)
            kept.update(body["metadata"]["uid"] for body in page if not _is_released(body))
            self._missed(page, cache, notify)
        for uid in before:
            if uid not in present and (now := cache.by_uid(uid)) is not None:
                notify(now, gone=True)
        return kept

    async def _in_each_namespace(self, work: Callable[[str], Awaitable[None]]) -> set[str]:
        """Do the work in every namespace; return those where it succeeded. A failure does not stop the others."""
        done = set()
        for namespace in self.settings.namespaces:
            try:
                await work(namespace)
            except ApiError as error:
                extra = {"resource": "namespace", "key": namespace, "reason": str(error)}
                log.info("namespace skipped", extra=extra)
            else:
                done.add(namespace)
        if done:
            telemetry.API_LIVENESS.record_response()
        return done

    def _missed(self, page: list[Body], cache: Cache, notify: Callable[..., None]) -> None:
        for body in page:
            if (seen := cache.version(key_of(body))) is None or seen.is_missing(body):
                telemetry.WATCH_MISSED.inc()
                notify(body, gone=False)

    async def expire_finished(self) -> None:
        """Delete finished Redemptions whose `ttlSecondsAfterFinished` has passed, by the ledger's clock."""
        try:
            now = (await self.ledger.info()).now
        except LedgerUnavailableError:
            return

        async def delete_expired(namespace: str) -> None:
            async for page in self.kube.pages(REDEMPTION, namespace, _EXPIRING):
                for body in page:
                    if _expired(body, now):
                        await self._delete(body)

        await self._in_each_namespace(delete_expired)

    async def _delete(self, body: Body) -> None:
        metadata = body["metadata"]
        try:
            await self.kube.delete(REDEMPTION, metadata["namespace"], metadata["name"], metadata["uid"])
        except (ConflictError, NotFoundError):
            return
        except (ForbiddenError, InvalidError) as error:
            if is_authorization(error):
                raise  # it concerns all Redemptions of the namespace
            key = f"{metadata['namespace']}/{metadata['name']}"
            log.info(
                "expired Redemption not deleted", extra={"resource": "Redemption", "key": key, "reason": str(error)}
            )


def _is_released(body: Body) -> bool:
    """Whether its deletion has begun and our finalizer is removed: only another finalizer keeps the object."""
    metadata = body["metadata"]
    return "deletionTimestamp" in metadata and FINALIZER not in metadata.get("finalizers", ())


def _expired(body: Body, now: datetime) -> bool:
    ttl = body["spec"].get("ttlSecondsAfterFinished")
    finished_at = body.get("status", {}).get("finishedAt")
    if ttl is None or finished_at is None or "deletionTimestamp" in body["metadata"]:
        return False
    since = conditions.parse_time(finished_at)
    return since is not None and now - since >= timedelta(seconds=ttl)

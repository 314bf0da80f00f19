"""Voucher: translates the resource for the use case `services.issue`, and the ledger's result into the status.

Level-triggered: the same `reconcile` serves a new Voucher, an edit, drift, a changed counter, and a created or changed
Secret. See also: `kube.work_queue` calls `reconcile`; `status` builds the conditions; `events` posts Events;
`controllers.watch` calls `revoke`.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from sys import intern
from typing import Final

from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.secret_codes import SecretCodes
from voucher_operator.controllers.voucher import status as voucher_status
from voucher_operator.controllers.voucher.conflicts import Conflicts
from voucher_operator.controllers.voucher.events import VoucherEvents
from voucher_operator.kube.cache import Cache, key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.status_writer import StatusWriter, is_news
from voucher_operator.kube.work_queue import Result
from voucher_operator.ledger.errors import LedgerBusyError, PoolFullError
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.types import PutResult, VoucherCounters, VoucherOwner, VoucherTerms
from voucher_operator.resources import conditions
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import (
    CodeConflictError,
    CodeReservedError,
    InvalidSpecError,
    LedgerUnavailableError,
    OperatorError,
    TransientError,
)
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.voucher import Voucher
from voucher_operator.services.issue import IssueService

log = logging.getLogger(__name__)

FINALIZER: Final = "billing.openova.io/revoke"
_REPORTED: Final = 10_000
"""Revocations that are remembered as reported; kopf repeats one within minutes."""


class VoucherController:
    """Reconciles Vouchers. `requeue` adds a key to the work queue."""

    def __init__(
        self,
        issuing: IssueService,
        health: LedgerHealth,
        api: KubeApi,
        secrets: SecretCodes,
        events: VoucherEvents,
        cache: Cache,
    ) -> None:
        self.health = health
        self.requeue: Callable[[str], None] = lambda _: None
        self._issuing = issuing
        self._secrets = secrets
        self._events = events
        self._cache = cache
        self._api = api
        self._writer = StatusWriter(api, VOUCHER, cache)
        self._agreed: dict[str, int] = {}
        """By uid: the hash of what was compared last, and was equal."""
        self._reported: dict[str, None] = {}
        """uids of deleted Vouchers for which the Event Revoked is posted."""
        self._placed: dict[str, str] = {}
        """By key: the uid for which the ledger has a code."""
        self._fresh: dict[str, VoucherCounters] = {}
        self._conflicts = Conflicts()

    async def reconcile(self, key: str) -> Result:
        """Make the ledger row equal to the Voucher, and write the status; raises TransientError and ApiError."""
        await self._writer.confirm(key)
        body = self._cache.get(key)
        await self._revoke_predecessor(key, body)
        if body is None or not _has_finalizer(body):
            self._conflicts.drop(key)
            return Result.DONE
        try:
            voucher = Voucher.parse(body)
        except InvalidSpecError as unknown:
            if body["spec"].get("active") is False:
                await self._issuing.deactivate(owner_of(body))
            written = await self._writer.write_invalid(key, body, unknown, conditions.VOUCHER_CONDITIONS)
            return Result.DONE if written else Result.REQUEUE
        return await self._reconcile(key, body, voucher)

    async def _reconcile(self, key: str, body: Body, voucher: Voucher) -> Result:
        try:
            if self._issuing.is_revoked(voucher.metadata.uid):
                return Result.DONE
            counters = self._known(voucher) or await self._issue(body, voucher)
        except (LedgerBusyError, PoolFullError) as error:
            # The row is locked, or no connection was free: the status of an issued Voucher stays correct.
            if _is_settled(voucher):
                raise
            return await self._fail(key, body, voucher, error)
        except OperatorError as error:
            return await self._fail(key, body, voucher, error)
        self._conflicts.drop(key)
        if counters is None:
            return Result.DONE
        status = voucher_status.issued(voucher, counters, datetime.now(UTC))
        report = lambda: self._events.status_written(body, voucher, status["state"])  # noqa: E731
        return Result.DONE if await self._writer.write(key, body, status, report) else Result.REQUEUE

    def _known(self, voucher: Voucher) -> VoucherCounters | None:
        """Return the counters that the counter sync has just read, if only counters have changed; else None."""
        counters = self._fresh.pop(voucher.metadata.uid, None)
        if counters is None or counters.drifted or counters.generation != voucher.metadata.generation:
            return None
        return counters if _is_settled(voucher) else None

    async def _issue(self, body: Body, voucher: Voucher) -> VoucherCounters | None:
        """Put the Voucher into the ledger, and record what that changed; None when it was revoked meanwhile."""
        metadata = voucher.metadata

        async def read_terms() -> VoucherTerms:
            terms = await self._terms(voucher)
            self._conflicts.add(voucher.key, normal_code(terms.code))
            return terms

        result = await self._issuing.issue(metadata.uid, read_terms)
        if result is None:
            return None
        self._placed[intern(voucher.key)] = intern(metadata.uid)
        self._events.put(body, voucher, result)
        self._requeue_displaced(result)
        return result.counters

    def _requeue_displaced(self, result: PutResult) -> None:
        if result.displaced is not None:
            self.requeue(f"{result.displaced.namespace}/{result.displaced.name}")

    async def _revoke_predecessor(self, key: str, body: Body | None) -> None:
        """Revoke the code of an earlier Voucher of this name that was deleted without its code being revoked."""
        placed = self._placed.get(key)
        if placed is None or (body is not None and body["metadata"]["uid"] == placed):
            return
        revoked = await self._revoke(VoucherOwner(placed, *key.split("/")))
        self._placed.pop(key, None)
        if revoked:
            extra = {"resource": "Voucher", "key": key, "reason": Reason.REVOKED.value}
            log.info("revoked the code of a deleted Voucher", extra=extra)

    async def _fail(self, key: str, body: Body, voucher: Voucher, error: OperatorError) -> Result:
        if not isinstance(error, CodeConflictError | CodeReservedError):
            self._conflicts.drop(key)
        stopped: voucher_status.Stopped | None = None
        if not voucher.spec.active and not isinstance(error, LedgerUnavailableError):
            # Its new terms do not reach the ledger, but that nobody can redeem it any more always does.
            try:
                deactivated = await self._issuing.deactivate(owner_of(body))
            except LedgerUnavailableError as unavailable:
                error = unavailable
            else:
                stopped = voucher_status.DEACTIVATED if deactivated or "timesRedeemed" in voucher.status else None
        status = voucher_status.failed(voucher, error, datetime.now(UTC), stopped)
        if not await self._writer.write(key, body, status, lambda: self._events.failure_written(body, voucher, error)):
            return Result.REQUEUE
        return Result.RETRY if isinstance(error, TransientError) else Result.DONE

    async def _terms(self, voucher: Voucher) -> VoucherTerms:
        """Read the terms; raises SecretNotFoundError, SecretUnreadableError, InvalidCodeError."""
        spec, metadata = voucher.spec, voucher.metadata
        code = await self._code(voucher)
        self.health.check()
        return VoucherTerms(
            uid=metadata.uid,
            namespace=metadata.namespace,
            name=metadata.name,
            created_at=metadata.creation_timestamp,
            generation=metadata.generation,
            code=code,
            from_secret=voucher.from_secret,
            credit_minor=voucher.credit_minor,
            currency=spec.credit.currency,
            description=spec.description,
            active=spec.active,
            max_redemptions=spec.max_redemptions,
            valid_from=spec.valid_from,
            valid_until=spec.valid_until,
        )

    async def _code(self, voucher: Voucher) -> str:
        if voucher.spec.code_from is None:
            return voucher.spec.code or ""
        return await self._secrets.read(voucher.metadata.namespace, voucher.spec.code_from.secret_key_ref)

    def differs(self, key: str, counters: VoucherCounters) -> bool:
        """Whether the ledger's counters differ from the status; cheap when both are unchanged since the last call."""
        seen = hash((self._cache.version(key), counters))
        if self._agreed.get(counters.uid) == seen or (body := self._cache.get(key)) is None:
            return False
        try:
            voucher = Voucher.parse(body)
        except InvalidSpecError:
            return False
        outdated = counters.drifted or counters.generation != voucher.metadata.generation
        stale = outdated or is_news(body, voucher_status.issued(voucher, counters, datetime.now(UTC)))
        if stale:
            self._fresh[counters.uid] = counters
        else:
            self._agreed[intern(counters.uid)] = seen
        return stale

    async def revoke(self, body: Body) -> None:
        """Revoke the code of a deleted Voucher; raises LedgerUnavailableError and ApiError. Redemptions stay.

        The Event is posted also when the ledger has nothing left to revoke: an earlier response may have been lost.
        """
        metadata = body["metadata"]
        owner = owner_of(body)
        revoked = await self._revoke(owner)
        self._placed.pop(key_of(body), None)
        issued = voucher_status.was_issued(body.get("status", {}).get("conditions", ()))
        if not revoked and (earlier := await self._issuing.owners_named(owner)):
            issued = revoked = await self._revoke_earlier(owner, earlier)
        if (revoked or issued) and metadata["uid"] not in self._reported:
            self._reported[metadata["uid"]] = None
            if len(self._reported) > _REPORTED:
                del self._reported[next(iter(self._reported))]
            self._events.revoked(body)

    async def _revoke_earlier(self, owner: VoucherOwner, earlier: Sequence[VoucherOwner]) -> bool:
        """Revoke what Vouchers of the name of `owner` had before it; return whether nothing of that name is live.

        After a restore the ledger has the uid of the Voucher that was backed up until the new one is put. `earlier` was
        read from the ledger before: it is earlier only if `owner` exists now. Otherwise another Voucher may have been
        created under the name since, and its code stays; an orphan is left to the resync.
        """
        body = await self._api.get(VOUCHER, owner.namespace, owner.name)
        if body is None or body["metadata"]["uid"] != owner.uid:
            return False
        for one in earlier:
            await self._revoke(one)
        return not await self._issuing.owners_named(owner)

    async def _revoke(self, owner: VoucherOwner) -> bool:
        code = self._issuing.codes.code_of(owner.uid)
        revoked = await self._issuing.revoke(owner)
        self._fresh.pop(owner.uid, None)
        self._agreed.pop(owner.uid, None)
        self._events.forget(owner.uid)
        if revoked or code is not None:
            self._requeue_conflicts(code)
        return revoked

    def release_finalizer(self, body: Body, error: TransientError) -> None:
        """Report that the finalizer is removed before the revocation, so that a namespace can be deleted."""
        self._events.finalizer_released(body, error)

    async def revoke_orphan(self, owner: VoucherOwner) -> None:
        """Revoke the code of a Voucher that was deleted without its code being revoked."""
        if await self._issuing.revoke_orphan(owner):
            self._requeue_conflicts(normal_code(owner.code))
            key = f"{owner.namespace}/{owner.name}"
            extra = {"resource": "Voucher", "key": key, "reason": Reason.REVOKED.value}
            log.warning("revoked the code of a deleted Voucher", extra=extra)

    def wanted_code(self, key: str) -> str | None:
        """Return the code (normal form) that a Voucher waits for, also from a Secret; None if it waits for none."""
        return self._conflicts.code_of(key)

    def _requeue_conflicts(self, code: str | None) -> None:
        """Requeue the Vouchers that wait for a code, which is free now; None: for any code."""
        for key in self._conflicts.waiting(code):
            self.requeue(key)


def owner_of(body: Body) -> VoucherOwner:
    """Return the Voucher as the ledger knows it."""
    metadata = body["metadata"]
    return VoucherOwner(metadata["uid"], metadata["namespace"], metadata["name"])


def _has_finalizer(body: Body) -> bool:
    """Whether it has our finalizer and its deletion has not begun: only then its code is issued."""
    metadata = body["metadata"]
    return "deletionTimestamp" not in metadata and FINALIZER in metadata.get("finalizers", ())


def _is_settled(voucher: Voucher) -> bool:
    """Whether its status says that the ledger has this generation."""
    return voucher_status.ready_reason(voucher.conditions) == Reason.ISSUED and voucher.status.get(
        "observedGeneration"
    ) == (voucher.metadata.generation)

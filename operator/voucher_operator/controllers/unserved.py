"""Handles the Vouchers in namespaces that the operator served before and does not serve now.

Nobody watches them any more, but their codes are on the ledger, and they have the operator's finalizer. The setting
`unserved_vouchers` decides whether their codes are kept, which is the default: a mistake in the list of namespaces must
not stop a campaign. Whatever it says, these Vouchers report that they are not served, one that is deleted loses its
code and its finalizer, and `active: false` reaches the ledger. The rights for this are in the chart's ClusterRole for
Vouchers; the Role of the namespace may be gone.

The namespace may also be served by another operator now, with another ledger: what that one has written is left as it
is. And a ledger may have several clusters: the name under which an operator reports has the cluster in it, because a
namespace that another cluster serves has no Voucher here.

See also: `ledger.namespace` records what is served; `voucher.controller` has the Vouchers that are served;
docs/operations.md, "A namespace that is no longer served".
"""

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from voucher_operator import telemetry
from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.voucher import status as voucher_status
from voucher_operator.controllers.voucher.controller import FINALIZER, VoucherController
from voucher_operator.kube.cache import Cache, key_of, slim
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ConflictError, NotFoundError
from voucher_operator.kube.periodic import every
from voucher_operator.kube.status_writer import StatusWriter
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import is_outage
from voucher_operator.ledger.types import UnservedNamespace, VoucherOwner
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import (
    ApiError,
    InvalidSpecError,
    LeaseExpiredError,
    LedgerUnavailableError,
    NamespaceNotServedError,
    OperatorError,
)
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.voucher import Voucher
from voucher_operator.services.issue import IssueService
from voucher_operator.settings import Settings
from voucher_operator.settings.cluster import UnservedVouchers

log = logging.getLogger(__name__)

_INTERVAL: Final = 60.0
"""Seconds between two runs: the longest time for which the deletion of such a Voucher waits."""
_CLOCKS: Final = timedelta(minutes=5)
"""How much the clocks of the API server and of PostgreSQL may differ."""
_KEPT: Final = (
    "The operator no longer serves this namespace: the code keeps its last terms. Add the namespace to "
    "watchNamespaces, or delete this Voucher to revoke its code."
)
_REVOKED: Final = (
    "The operator no longer serves this namespace, and has revoked the code. Add the namespace to watchNamespaces to "
    "issue it again, with its counter."
)


@dataclass(slots=True)
class UnservedNamespaces:
    """A periodic task; one instance for each term as leader."""

    ledger: Ledger
    kube: KubeApi
    issuing: IssueService
    vouchers: VoucherController
    settings: Settings
    _warned: set[str] = field(default_factory=set)
    _issued: set[str] = field(default_factory=set)
    """uids of the Vouchers that had a code."""
    _reported: set[str] = field(default_factory=set)
    """uids whose status says that the namespace is not served."""
    _released: set[str] = field(default_factory=set)
    """uids whose finalizer was removed."""

    async def run(self) -> None:
        """Run until cancelled."""
        await every(min(self.settings.resync_interval, _INTERVAL), self.check)

    async def release(self) -> None:
        """Run once, where the periodic task does not run; a failure is logged."""
        try:
            await self.check()
        except (ApiError, OperatorError) as error:
            _will_retry("task", "unserved namespaces", error)

    async def check(self) -> None:
        """Report to the ledger what is served, and handle what is not; raises LedgerUnavailableError and ApiError."""
        # As long as this CRD lives, so do its Vouchers, also those of a namespace that was dropped: another uid is
        # another cluster, or one where no Voucher of before is left. A replaced Lease would not mean that.
        if (crd := await self.kube.metadata(VOUCHER.crd_path)) is None:
            return
        name = self.settings.operator_name(crd["uid"])
        found = await self.ledger.report_namespaces(name, self.settings.namespaces)
        telemetry.UNSERVED_VOUCHERS.set(sum(one.vouchers for one in found))
        if not found:
            return
        self._warn(found)
        # The rows are read before the resources: a Voucher exists before its row, so a row without one is an orphan.
        owners = await self.ledger.owners()
        cleared = [one.namespace for one in found if await self._is_cleared(one, owners)]
        if cleared:
            await self.ledger.record_cleared(cleared)

    def _warn(self, found: Sequence[UnservedNamespace]) -> None:
        for one in found:
            if one.vouchers and one.namespace not in self._warned:
                self._warned.add(one.namespace)
                message = "namespace is not served, but has Vouchers that can be redeemed"
                why = "Dropped" if one.dropped else "NotReported"
                log.warning(message, extra={"resource": "namespace", "key": one.namespace, "reason": why})

    async def _is_cleared(self, one: UnservedNamespace, owners: Sequence[VoucherOwner]) -> bool:
        """Handle one namespace; return whether it was dropped and nothing of the operator is left in it."""
        try:
            left = await self._handle(one, [owner for owner in owners if owner.namespace == one.namespace])
        except ApiError as error:
            extra = {"resource": "namespace", "key": one.namespace, "reason": str(error)}
            log.info("namespace skipped", extra=extra)
            return False
        return one.dropped and not left

    async def _handle(self, one: UnservedNamespace, owners: Sequence[VoucherOwner]) -> bool:
        """Process all Vouchers of a namespace; return whether any is left that has a code or the finalizer."""
        left, empty, absent = False, True, {owner.uid: owner for owner in owners}
        # A Voucher that was created again, for example from a backup, has the code of its name.
        named = {owner.name: owner for owner in owners}
        async for page in self.kube.pages(VOUCHER, one.namespace):
            for body in map(slim, page):
                empty = False
                owner = absent.get(body["metadata"]["uid"]) or named.get(body["metadata"]["name"])
                if owner is not None:
                    absent.pop(owner.uid, None)
                if await self._is_left(key_of(body), self._voucher(one, body, owner)):
                    left = True
        if await self._absent(one, list(absent.values()), empty=empty):
            left = True
        return left

    async def _absent(self, one: UnservedNamespace, owners: Sequence[VoucherOwner], *, empty: bool) -> bool:
        """Revoke the codes whose Vouchers do not exist, as `resync` does; return whether any is left.

        Not where no Voucher at all exists, unless codes of such a namespace are revoked anyway: that may also be
        another cluster, or one that was built again and is not restored yet.
        """
        if not one.dropped or (empty and self.settings.unserved_vouchers is UnservedVouchers.KEEP):
            return bool(owners)
        left = False
        for owner in owners:
            if await self._is_left(f"{owner.namespace}/{owner.name}", self._orphan(owner)):
                left = True
        return left

    async def _orphan(self, owner: VoucherOwner) -> bool:
        await self.vouchers.revoke_orphan(owner)
        return False

    async def _is_left(self, key: str, work: Awaitable[bool]) -> bool:
        """Return the result for one Voucher. If it alone fails, it is left, and the others are processed.

        Raises LedgerUnavailableError when the whole ledger is unavailable, and LeaseExpiredError.
        """
        try:
            return await work
        except LeaseExpiredError:
            raise
        except (ApiError, OperatorError) as error:
            if isinstance(error, LedgerUnavailableError) and is_outage(error):
                raise
            _will_retry("Voucher", key, error)
            return True

    async def _voucher(self, one: UnservedNamespace, body: Body, owner: VoucherOwner | None) -> bool:
        """Process one Voucher; `owner` if it has a code. Return whether it still has that, or the finalizer."""
        if owner is not None:
            self._issued.add(body["metadata"]["uid"])
        if "deletionTimestamp" in body["metadata"]:
            return await self._deleted(one, body, owner)
        if body["spec"].get("active") is False and owner is not None:
            await self.issuing.deactivate(owner)
        if not one.dropped:
            return True
        if self.settings.unserved_vouchers is UnservedVouchers.REVOKE:
            await self._revoke(body, owner)
            if self._is_anothers(one, body):
                return False
            # One write in each run: the second one would be refused, because the first one has changed the object.
            return await self._release(body) or not await self._report(body, _REVOKED, voucher_status.REVOKED)
        if self._is_anothers(one, body):
            return owner is not None
        await self._report(body, _KEPT)
        return owner is not None or FINALIZER in body["metadata"].get("finalizers", ())

    async def _deleted(self, one: UnservedNamespace, body: Body, owner: VoucherOwner | None) -> bool:
        """Revoke the code of a Voucher whose deletion waits, and let the deletion end.

        In a namespace that this operator has not dropped, one without a code on this ledger may be another ledger's.
        """
        if owner is None and not one.dropped:
            return True
        await self._revoke(body, owner)
        if self._is_anothers(one, body):
            return False
        return await self._release(body)

    def _is_anothers(self, one: UnservedNamespace, body: Body) -> bool:
        """Whether another operator serves this Voucher, perhaps with another ledger: both would write it in turn.

        So it is when the Voucher never had a code here and is newer than the drop, or when what this one wrote was
        written over. One that had no code and is older may have this operator's finalizer.
        """
        metadata = body["metadata"]
        if metadata["uid"] not in self._issued and _is_newer(body, one.dropped_at):
            return True
        if metadata["uid"] in self._released and FINALIZER in metadata.get("finalizers", ()):
            return True
        reason = voucher_status.ready_reason(body["status"].get("conditions", ()))
        return metadata["uid"] in self._reported and reason != Reason.NAMESPACE_NOT_SERVED

    async def _revoke(self, body: Body, owner: VoucherOwner | None) -> None:
        if owner is not None and await self.issuing.revoke(owner):
            extra = {"resource": "Voucher", "key": key_of(body), "reason": "NamespaceNotServed"}
            log.info("revoked the code of a Voucher in a namespace that is not served", extra=extra)

    async def _release(self, body: Body) -> bool:
        """Remove the operator's finalizer, or have the next run do it; return whether the Voucher had it."""
        finalizers = body["metadata"].get("finalizers", ())
        if FINALIZER not in finalizers:
            return False
        try:
            await self.kube.remove_finalizer(VOUCHER, body, FINALIZER)
        except (ConflictError, NotFoundError) as error:
            _will_retry("Voucher", key_of(body), error)
        else:
            self._released.add(body["metadata"]["uid"])
        return True

    async def _report(self, body: Body, message: str, stopped: voucher_status.Stopped | None = None) -> bool:
        """Write into the status that the Voucher is not served; False if it has changed: the next run does it."""
        try:
            voucher = Voucher.parse(body)
        except InvalidSpecError:
            return True
        status = voucher_status.failed(voucher, NamespaceNotServedError(message), datetime.now(UTC), stopped)
        written = await StatusWriter(self.kube, VOUCHER, Cache()).write(key_of(body), body, status)
        if written:
            self._reported.add(body["metadata"]["uid"])
        return written


def _is_newer(body: Body, dropped_at: datetime | None) -> bool:
    created_at = conditions.parse_time(body["metadata"]["creationTimestamp"])
    return dropped_at is not None and created_at is not None and created_at > dropped_at + _CLOCKS


def _will_retry(resource: str, key: str, error: Exception) -> None:
    log.info("will be retried", extra={"resource": resource, "key": key, "reason": str(error)})

"""Handles the Vouchers in namespaces that the operator served before and does not serve now.

Nobody watches them any more, but their codes are on the ledger, and they have the operator's finalizer. The setting
`unserved_vouchers` decides whether their codes are kept, which is the default: a mistake in the list of namespaces must
not stop a campaign. Whatever it says, these Vouchers report that they are not served, one that is deleted loses its
code and its finalizer, and `active: false` reaches the ledger. The rights for this are in the chart's ClusterRole for
Vouchers; the Role of the namespace may be gone.

See also: `ledger.namespace` records what is served; `voucher.controller` has the Vouchers that are served;
docs/operations.md, "A namespace that is no longer served".
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from voucher_operator.ledger.types import UnservedNamespace, VoucherOwner
from voucher_operator.resources.errors import ApiError, InvalidSpecError, NamespaceNotServedError
from voucher_operator.resources.voucher import Voucher
from voucher_operator.services.issue import IssueService
from voucher_operator.settings import Settings
from voucher_operator.settings.cluster import UnservedVouchers

log = logging.getLogger(__name__)

_INTERVAL: Final = 60.0
"""Seconds between two runs: the longest time for which the deletion of such a Voucher waits."""
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

    async def run(self) -> None:
        """Run until cancelled."""
        await every(min(self.settings.resync_interval, _INTERVAL), self.check)

    async def check(self) -> None:
        """Report to the ledger what is served, and handle what is not; raises LedgerUnavailableError."""
        found = await self.ledger.report_namespaces(self.settings.operator_name, self.settings.namespaces)
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
        left, absent = False, {owner.uid: owner for owner in owners}
        # A Voucher that was created again, for example from a backup, has the code of its name.
        named = {owner.name: owner for owner in owners}
        async for page in self.kube.pages(VOUCHER, one.namespace):
            for body in map(slim, page):
                owner = absent.get(body["metadata"]["uid"]) or named.get(body["metadata"]["name"])
                if owner is not None:
                    absent.pop(owner.uid, None)
                if await self._voucher(one, body, owner):
                    left = True
        if one.dropped:  # as `resync` does in a namespace that is served
            for owner in absent.values():
                await self.vouchers.revoke_orphan(owner)
        return left

    async def _voucher(self, one: UnservedNamespace, body: Body, owner: VoucherOwner | None) -> bool:
        """Process one Voucher; `owner` if it has a code. Return whether it still has that, or the finalizer."""
        if "deletionTimestamp" in body["metadata"]:
            return await self._deleted(one, body, owner)
        if body["spec"].get("active") is False and owner is not None:
            await self.issuing.deactivate(owner)
        if not one.dropped:
            return True
        if self.settings.unserved_vouchers is UnservedVouchers.REVOKE:
            await self._revoke(body, owner)
            # One write in each run: the second one would be refused, because the first one has changed the object.
            return await self._release(body) or not await self._report(body, _REVOKED, voucher_status.REVOKED)
        await self._report(body, _KEPT)
        return owner is not None or FINALIZER in body["metadata"].get("finalizers", ())

    async def _deleted(self, one: UnservedNamespace, body: Body, owner: VoucherOwner | None) -> bool:
        """Revoke the code of a Voucher whose deletion waits, and let the deletion end.

        In a namespace that this operator has not dropped, one without a code on this ledger may be another ledger's.
        """
        if owner is None and not one.dropped:
            return True
        await self._revoke(body, owner)
        return await self._release(body)

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
            log.info("will be retried", extra={"resource": "Voucher", "key": key_of(body), "reason": str(error)})
        return True

    async def _report(self, body: Body, message: str, stopped: voucher_status.Stopped | None = None) -> bool:
        """Write into the status that the Voucher is not served; False if it has changed: the next run does it."""
        try:
            voucher = Voucher.parse(body)
        except InvalidSpecError:
            return True
        status = voucher_status.failed(voucher, NamespaceNotServedError(message), datetime.now(UTC), stopped)
        return await StatusWriter(self.kube, VOUCHER, Cache()).write(key_of(body), body, status)

"""Reports disputes by Kubernetes Events, and counts the payments that need a person.

A dispute does not change its order until it is lost, so nothing else would show it at the Redemption. The ledger
records which status of a dispute was reported, in the run after the Event was queued: when the process dies in between,
the Event is posted again. The counts follow the ledger: they fall when a payment is settled, by whatever settles it.

See also: `ledger.payment.records` has the disputes; `controller` posts the Event of a lost payment, with the status;
`process.run` runs this while this replica leads.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from voucher_operator import telemetry
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.purchase.controller import asks_for
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.errors import ForbiddenError
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.periodic import every
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.payment.records import ReportedDispute
from voucher_operator.resources.errors import ApiError
from voucher_operator.resources.reasons import Reason
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
_INTERVAL: Final = 10.0
_PAUSE: Final = 300.0
"""Seconds for which a namespace that may not be read is left out."""
_LOST: Final = "lost"
_KEPT: Final = ("won", "warning_closed", "prevented")
_DISPUTED: Final = "The payment of this order is disputed: the sovereign-admin must respond at Stripe."
_CLOSED: Final = "The dispute of this order's payment has ended, and the money stays here."


@dataclass(slots=True)
class PaymentReporter:
    """Periodic tasks; one instance for each term as leader."""

    ledger: Ledger
    api: KubeApi
    recorder: EventRecorder
    health: LedgerHealth
    settings: Settings
    _queued: dict[str, str] = field(default_factory=dict)
    """Status by id, of disputes whose Event was queued in the last run."""
    _paused: dict[str, float] = field(default_factory=dict)
    """Namespaces that may not be read, and until when they are left out."""

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(every(_INTERVAL, self.report))
                group.create_task(every(_INTERVAL, self.count))
        finally:
            # The next leader counts them.
            telemetry.UNSETTLED_PAYMENTS.clear()

    async def report(self) -> None:
        """Post an Event for each new status of a dispute, if its Redemption exists."""
        if not self.health.available:
            return
        if self._queued:
            await self.ledger.record_disputes_reported(self._queued)
        now = asyncio.get_running_loop().time()
        namespaces = [name for name in self.settings.namespaces if self._paused.get(name, now) <= now]
        found = await self.ledger.unreported_disputes(namespaces, _AT_ONCE)
        unread: set[str] = set()
        self._queued = {one.dispute_id: one.status for one in found if await self._is_reported(one, unread)}

    async def count(self) -> None:
        """Count the payments that need a person."""
        if not self.health.available:
            return
        for kind, number in (await self.ledger.unsettled_payments()).items():
            telemetry.UNSETTLED_PAYMENTS.labels(kind).set(number)

    async def _is_reported(self, dispute: ReportedDispute, unread: set[str]) -> bool:
        """Queue the Event; False when the namespace cannot be read, which is then added to `unread`."""
        namespace = dispute.key.namespace
        if dispute.status == _LOST or namespace is None:
            return True  # the status of its order has that
        if namespace in unread:
            return False
        try:
            body = await self.api.get(REDEMPTION, namespace, dispute.key.name)
        except ApiError as error:
            unread.add(namespace)
            if isinstance(error, ForbiddenError):
                self._paused[namespace] = asyncio.get_running_loop().time() + _PAUSE
            log.info("will be retried", extra={"resource": "dispute", "key": dispute.key, "reason": str(error)})
            return False
        purchase = await self.ledger.purchase_of(dispute.key)
        if body is not None and purchase is not None and asks_for(body, purchase):
            closed = dispute.status in _KEPT
            reason, message = (Reason.DISPUTE_CLOSED, _CLOSED) if closed else (Reason.PAYMENT_DISPUTED, _DISPUTED)
            self.recorder.record(REDEMPTION, body, reason, "Order", message, warning=not closed)
        return True

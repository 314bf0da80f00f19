"""Reports disputes by Kubernetes Events, and counts the payments that need a person.

A dispute does not change its order until it is lost, so nothing else would tell the Redemption of it. The ledger
records which status of a dispute was reported; an Event may be posted twice when the process dies in between. The
counts follow the ledger: they fall when a payment is settled, by whatever settles it.

See also: `ledger.payment.records` has the disputes; `controller` posts the Event of a lost payment, with the status;
`process.run` runs this while this replica leads.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from voucher_operator import telemetry
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.kube.client import KubeApi
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
        found = await self.ledger.unreported_disputes(self.settings.namespaces, _AT_ONCE)
        reported = {one.dispute_id: one.status for one in found if await self._is_reported(one)}
        if reported:
            await self.ledger.record_disputes_reported(reported)

    async def count(self) -> None:
        """Count the payments that need a person."""
        if not self.health.available:
            return
        for kind, number in (await self.ledger.unsettled_payments()).items():
            telemetry.UNSETTLED_PAYMENTS.labels(kind).set(number)

    async def _is_reported(self, dispute: ReportedDispute) -> bool:
        if dispute.status == _LOST or dispute.key.namespace is None:
            return True  # the status of its order has that
        try:
            body = await self.api.get(REDEMPTION, dispute.key.namespace, dispute.key.name)
        except ApiError as error:
            log.info("will be retried", extra={"resource": "dispute", "key": dispute.key, "reason": str(error)})
            return False
        if body is not None:
            closed = dispute.status in _KEPT
            reason, message = (Reason.DISPUTE_CLOSED, _CLOSED) if closed else (Reason.PAYMENT_DISPUTED, _DISPUTED)
            self.recorder.record(REDEMPTION, body, reason, "Order", message, warning=not closed)
        return True

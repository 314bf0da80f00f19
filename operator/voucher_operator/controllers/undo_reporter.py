"""Reports redemptions that another writer has undone: the Go service can undo a redemption that the operator made.

A finished Redemption is not watched, so its status would stay Redeemed. A trigger (migrations/0012) records each undo
as unreported; here the status of each such Redemption is written again, and the undo is marked as reported once the
status no longer says Redeemed, or the Redemption does not exist.

See also: `redemption.controller` and `purchase.controller` write the status; `process.run` runs this while this
replica leads.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.purchase.controller import PurchaseController
from voucher_operator.controllers.redemption.controller import RedemptionController
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ForbiddenError
from voucher_operator.kube.periodic import every
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import ApiError
from voucher_operator.resources.keys import Key
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_AT_ONCE: Final = 200
"""Maximum number of Redemptions in one run, those undone first first."""


@dataclass(slots=True)
class UndoReporter:
    """A periodic task; one instance for each term as leader."""

    ledger: Ledger
    api: KubeApi
    redemptions: RedemptionController
    redemption_queue: WorkQueue
    purchases: PurchaseController
    order_queue: WorkQueue
    health: LedgerHealth
    settings: Settings

    async def run(self) -> None:
        """Run until cancelled."""
        await every(self.settings.counter_sync_interval, self.report)

    async def report(self) -> None:
        """Reconcile the Redemptions that still say Redeemed, and mark the others as reported."""
        if not self.health.available:
            return
        undone = await self.ledger.undone_elsewhere(self.settings.namespaces, self.settings.backoff_max, _AT_ONCE)
        reported = [key for key, at in undone.items() if await self._is_reported(key, at)]
        if reported:
            await self.ledger.record_undo_reported(reported)

    async def _is_reported(self, key: Key, undone_at: datetime) -> bool:
        try:
            body = None if key.namespace is None else await self.api.get(REDEMPTION, key.namespace, key.name)
        except ForbiddenError:
            return False  # `kube.client` logs once which permission is missing
        except ApiError as error:
            log.info("will be retried", extra={"resource": "redemption", "key": key, "reason": str(error)})
            return False
        if body is not None and _says_redeemed(body):
            self._reconcile(body, key, undone_at)
            return False
        # An unfinished one may still become Redeemed: the ledger answered before the undo, and the PATCH is running.
        return body is None or bool(body.get("status", {}).get("finished"))

    def _reconcile(self, body: Body, key: Key, undone_at: datetime) -> None:
        if self.order_queue.knows(key) or self.redemption_queue.knows(key):
            return
        if "order" in body["spec"]:
            self.purchases.reopen(body, key)
            self.order_queue.add(key)
        else:
            self.redemptions.reopen(body, key, undone_at)
            self.redemption_queue.add(key)


def _says_redeemed(body: Body) -> bool:
    found: list[dict[str, str]] = body.get("status", {}).get("conditions", [])
    return any(one["type"] == conditions.REDEEMED and one["status"] == "True" for one in found)

"""Compares the status of finished Redemptions with the ledger: one of the two may have been restored from a backup.

A finished Redemption is not watched. So a restored status stays as it was in the backup: Rejected although the ledger
has granted the request since, or Redeemed although the ledger, restored itself, knows nothing of it. The ledger
decides, and a status never makes a grant: what the ledger does not know is reported as RolledBack, and a person
decides whether the Redemption is created again.

It reads pages slowly, a few times a day and when a replica begins to lead. See also: `redemption.controller`
and `purchase.controller` write the status again; `redemption.resource_claims` finds the same for `verify --namespace`.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.purchase.controller import PurchaseController
from voucher_operator.controllers.redemption.controller import RedemptionController
from voucher_operator.kube.cache import key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.periodic import every
from voucher_operator.kube.work_queue import WorkQueue
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PurchaseState
from voucher_operator.ledger.types import KeyState, Outcome
from voucher_operator.resources.errors import ApiError, InvalidSpecError, LedgerUnavailableError
from voucher_operator.resources.redemption import Redemption, State
from voucher_operator.settings import Settings

log = logging.getLogger(__name__)

_FINISHED: Final = "status.finished=true"
_PAUSE: Final = 0.2
"""Seconds between two pages of 500: hundreds of thousands are read before the list's token expires, after minutes."""

_STATES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        PurchaseState.COMPLETED: frozenset({State.COMPLETED}),
        PurchaseState.CANCELLED: frozenset({State.REDEEMED, State.ROLLED_BACK}),
        PurchaseState.REFUNDED: frozenset({State.REDEEMED, State.ROLLED_BACK}),
        PurchaseState.CHARGED_BACK: frozenset({State.REDEEMED, State.ROLLED_BACK}),
        PurchaseState.ROLLED_BACK: frozenset({State.REDEEMED, State.ROLLED_BACK}),
        PurchaseState.PENDING: frozenset(),
        PurchaseState.AWAITING_PAYMENT: frozenset(),
    }
)
"""State of a purchase -> states of its finished Redemption. One that only a newer version knows is not compared."""
_WITHOUT_GRANT: Final = frozenset({State.REJECTED, State.ROLLED_BACK})


@dataclass(slots=True)
class StatusCheck:
    """A periodic task; one instance for each term as leader."""

    ledger: Ledger
    api: KubeApi
    redemptions: RedemptionController
    redemption_queue: WorkQueue
    purchases: PurchaseController
    order_queue: WorkQueue
    settings: Settings

    async def run(self) -> None:
        """Run until cancelled."""
        await every(self.settings.status_check_interval, self.check)

    async def check(self) -> None:
        """Compare all finished Redemptions, and reconcile those whose status is not what the ledger says.

        A namespace that could not be read to its end is read again after `resync_interval`.
        """
        left = list(self.settings.namespaces)
        while True:
            left = [namespace for namespace in left if not await self._is_checked(namespace)]
            if not left:
                return
            await asyncio.sleep(self.settings.resync_interval)

    async def _is_checked(self, namespace: str) -> bool:
        try:
            async for page in self.api.pages(REDEMPTION, namespace, _FINISHED):
                await self._compare(page)
                await asyncio.sleep(_PAUSE)
        except (ApiError, LedgerUnavailableError) as error:
            extra = {"resource": "namespace", "key": namespace, "reason": str(error)}
            log.info("statuses will be compared later", extra=extra)
            return False
        return True

    async def _compare(self, page: Sequence[Body]) -> None:
        # The ledger is read after the list: a result is in the ledger before it is in a status.
        known = await self.ledger.states([key_of(body) for body in page])
        for body in page:
            if "deletionTimestamp" not in body["metadata"] and _differs(body, known.get(key_of(body))):
                self._reconcile(body, key_of(body))

    def _reconcile(self, body: Body, key: str) -> None:
        if self.order_queue.knows(key) or self.redemption_queue.knows(key):
            return
        extra = {"resource": "Redemption", "key": key, "reason": str(body["status"].get("state"))}
        log.info("status is not what the ledger says", extra=extra)
        if "order" in body["spec"]:
            self.purchases.reopen(body, key)
            self.order_queue.add(key)
        else:
            self.redemptions.reopen(body, key)
            self.redemption_queue.add(key)


def _differs(body: Body, known: KeyState | None) -> bool:
    """Whether the ledger would give this finished Redemption another state."""
    state = body["status"].get("state")
    if "order" in body["spec"]:
        if known is None or known.purchase_state is None:
            return state not in _WITHOUT_GRANT
        expected = _STATES.get(known.purchase_state)
        return expected is not None and state not in expected and (state != State.REJECTED or _is_same(body, known))
    if known is not None and known.outcome == Outcome.REDEEMED:
        # Under this name another spec may have been granted; then Rejected is right.
        return state != State.REDEEMED and _is_same(body, known)
    if known is not None and known.outcome == Outcome.UNDONE:
        return state == State.REDEEMED or (state == State.REJECTED and _is_same(body, known))
    return state not in _WITHOUT_GRANT


def _is_same(body: Body, known: KeyState) -> bool:
    """Whether the ledger has decided this very request; an order without a code has no request of its own there."""
    try:
        return known.request_hash in (None, Redemption.parse(body).request_hash())
    except InvalidSpecError:
        return False

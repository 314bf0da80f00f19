"""Compares the status of finished Redemptions with the ledger: one of the two may have been restored from a backup.

A finished Redemption is not watched. So a restored status stays as it was in the backup: Rejected although the ledger
has granted the request since, or Redeemed although the ledger, restored itself, knows nothing of it. The ledger
decides, and a status never makes a grant: what the ledger does not know is reported as RolledBack, and a person
decides whether the Redemption is created again.

It reads pages slowly, a few times a day and some minutes after a replica begins to lead, and no faster than wrong
statuses are written. A namespace that cannot be read does not delay the others. See also: `redemption.controller` and
`purchase.controller` write the status again; `redemption.resource_claims` finds the same for `verify --namespace`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.controllers.purchase.controller import PurchaseController
from voucher_operator.controllers.redemption.controller import RedemptionController
from voucher_operator.kube.cache import key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ExpiredError
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
"""Seconds between two pages of 500."""
_FIRST: Final = (300.0, 600.0)
"""Least and most seconds before the first check: a Lease that changes its holder again and again reads nothing."""
_WAITING: Final = 1_000
"""Wrong statuses of a namespace that wait to be written, with their whole resources in memory, before the next page."""

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
    _checked: dict[str, float] = field(default_factory=dict)
    """By namespace: when it was last read to its end, by the monotonic clock."""

    async def run(self) -> None:
        """Run until cancelled."""
        interval = self.settings.status_check_interval
        await asyncio.sleep(min(interval, random.uniform(*_FIRST)))  # noqa: S311 - jitter
        await every(min(interval, self.settings.resync_interval), self.check_due)

    async def check_due(self) -> None:
        """Check the namespaces that were not read to their end within `status_check_interval`."""
        for namespace in self.settings.namespaces:
            last = self._checked.get(namespace)
            if last is not None and time.monotonic() - last < self.settings.status_check_interval:
                continue
            if await self.check(namespace):
                self._checked[namespace] = time.monotonic()

    async def check(self, namespace: str) -> bool:
        """Compare all finished Redemptions, and reconcile those whose status is not what the ledger says.

        Returns whether the namespace needs no other attempt before the next interval.
        """
        waiting: set[str] = set()
        try:
            async for page in self.api.slow_pages(REDEMPTION, namespace, _FINISHED):
                waiting |= await self._compare(page)
                await self._written(waiting)
        except ExpiredError as error:
            # What was read is compared; it would be no different at another attempt.
            _log(namespace, "statuses are not compared to the end", str(error))
        except (ApiError, LedgerUnavailableError) as error:
            _log(namespace, "statuses will be compared later", str(error))
            return False
        except TimeoutError:
            _log(namespace, "statuses will be compared later", f"{len(waiting)} wait to be written")
            return False
        return True

    async def _written(self, waiting: set[str]) -> None:
        """Wait until few of these keys wait; raises TimeoutError if that takes longer than `resync_interval`."""
        async with asyncio.timeout(self.settings.resync_interval):
            await asyncio.sleep(_PAUSE)
            while len(waiting) >= _WAITING:
                await asyncio.sleep(_PAUSE)
                waiting -= {key for key in waiting if not self._knows(key)}

    def _knows(self, key: str) -> bool:
        return self.order_queue.knows(key) or self.redemption_queue.knows(key)

    async def _compare(self, page: Sequence[Body]) -> set[str]:
        """Queue the Redemptions of a page whose status is wrong; return the keys of all that are."""
        # The ledger is read after the list: a result is in the ledger before it is in a status.
        known = await self.ledger.states([key_of(body) for body in page])
        kept = [body for body in page if "deletionTimestamp" not in body["metadata"]]
        wrong = {key_of(body): body for body in kept if _differs(body, known.get(key_of(body)))}
        for key, body in wrong.items():
            self._reconcile(body, key)
        return set(wrong)

    def _reconcile(self, body: Body, key: str) -> None:
        if self._knows(key):
            return
        extra = {"resource": "Redemption", "key": key, "reason": str(body["status"].get("state"))}
        log.info("status is not what the ledger says", extra=extra)
        if "order" in body["spec"]:
            self.purchases.reopen(body, key)
            self.order_queue.add(key)
        else:
            self.redemptions.reopen(body, key)
            self.redemption_queue.add(key)


def _log(namespace: str, message: str, reason: str) -> None:
    log.info(message, extra={"resource": "namespace", "key": namespace, "reason": reason})


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

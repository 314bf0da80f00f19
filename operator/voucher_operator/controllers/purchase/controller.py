"""Redemption with an order: from the resource to the use case `services.order`, and from the purchase to the status.

Level-triggered: the state of the purchase in the ledger is written into the status, and its next step is done. It has
its own queue, so that a slow payment processor does not delay other Redemptions. See also:
`redemption.request_builder` finds the code; `organization` creates the Organization; `status` builds the conditions;
`periodic` handles purchases whose Redemption was deleted.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from voucher_operator.controllers.organization import Organizations, OrganizationStatus
from voucher_operator.controllers.purchase import status as purchase_status
from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.controllers.redemption.controller import not_in_ledger
from voucher_operator.controllers.redemption.request_builder import DeletedError, RequestBuilder
from voucher_operator.controllers.redemption.result_writer import ResultWriter, StatusUpdate, UserEvent
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body
from voucher_operator.kube.work_queue import ReconcileResult, Result
from voucher_operator.ledger.health import LedgerHealth
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import InvalidSpecError, TerminalError, TransientError, VoucherNotReadyError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption, RedemptionStatus
from voucher_operator.services.order import Order, OrderService
from voucher_operator.services.refusals import Refusal

_OPEN: Final = (PurchaseState.PENDING, PurchaseState.AWAITING_PAYMENT)
"""The other states are final, and get an Event."""


@dataclass(slots=True)
class PurchaseController:
    """Reconciles Redemptions with an order."""

    orders: OrderService
    health: LedgerHealth
    cache: Cache
    requests: RequestBuilder
    writer: ResultWriter
    organizations: Organizations
    delivered: dict[Key, datetime] = field(default_factory=dict)
    """Keys whose final state was just written into the status, with its time; `periodic` records them in the ledger."""
    _reopened: set[str] = field(default_factory=set)

    def reopen(self, body: Body, key: str) -> None:
        """Have a finished Redemption reconciled, because its purchase has changed."""
        self.cache.put(body)
        self._reopened.add(key)

    async def reconcile(self, key: str) -> ReconcileResult:
        """Do the next steps of one order, and write the status; raises ApiError when the status cannot be written."""
        await self.writer.confirm(key)
        body = self.cache.get(key)
        if body is None or (body["status"].get("finished") and key not in self._reopened):
            return self._forget(key)
        try:
            redemption = Redemption.parse(body)
        except InvalidSpecError as error:
            if body["status"].get("finished"):
                self.cache.drop_object(body)
                return self._forget(key)
            return await self.writer.write_invalid(key, body, error)
        try:
            update = await self._update(redemption)
        except DeletedError:
            return self._forget(key)
        result = await self.writer.write(key, body, update)
        if update.finished and result is Result.DONE:
            if update.ended_at is not None:
                self.delivered[redemption.key] = update.ended_at
            self._forget(key)
        return result

    async def _update(self, redemption: Redemption) -> StatusUpdate:
        try:
            self.health.check()
            return await self._order(redemption)
        except VoucherNotReadyError as error:
            if await self.requests.is_mismatched(redemption):
                return _refusal(redemption, await self.orders.refuse(Reason.CURRENCY_MISMATCH))
            return StatusUpdate(redemption_status.waiting(redemption, error), retry=True)
        except TransientError as error:
            waiting = redemption_status.waiting(redemption, error)
            return StatusUpdate(waiting, retry=True, retry_after=error.retry_after)
        except TerminalError as error:
            return StatusUpdate(redemption_status.stalled(redemption, error))

    async def _order(self, redemption: Redemption) -> StatusUpdate:
        order = order_of(redemption)
        finished = bool(redemption.status.get("finished"))
        known = redemption.deleted or finished or redemption.status.get("orderID")
        purchase = await self.orders.find(order) if known else None
        if purchase is None and redemption.deleted:
            raise DeletedError
        if purchase is None and finished:
            return not_in_ledger(redemption)
        if purchase is None:
            placed = await self.orders.place(order, lambda: self.requests.build(redemption))
            if isinstance(placed, Refusal):
                if placed.provisional:
                    raise self.requests.missed(redemption.key)
                return _refusal(redemption, placed)
            purchase = placed
        return await self._advance(redemption, purchase)

    async def _advance(self, redemption: Redemption, purchase: Purchase) -> StatusUpdate:
        """Do the next step of a purchase, and build the status."""
        waiting_for: TransientError | None = None
        organization: OrganizationStatus | None = None
        if purchase.state is PurchaseState.PENDING:
            try:
                # A purchase whose Redemption is deleted is rolled back: nobody would read the checkout URL.
                deleted = self.requests.is_deleted(redemption)
                purchase = await (self.orders.cancel_pending if deleted else self.orders.advance)(purchase)
            except TransientError as error:
                waiting_for = error
        if purchase.state is PurchaseState.COMPLETED:
            organization = await self.organizations.ensure(purchase)
        currency = await self.orders.currency()
        status = purchase_status.of(redemption, purchase, currency, waiting_for=waiting_for, organization=organization)
        retry = purchase.state is PurchaseState.PENDING or (organization is not None and not organization.settled)
        event = _event(redemption, purchase, status)
        return StatusUpdate(status, purchase.state.value, retry, event, purchase.settled_at)

    def _forget(self, key: str) -> Result:
        self._reopened.discard(key)
        self.requests.forget(key)
        return Result.DONE


def order_of(redemption: Redemption) -> Order:
    """Translate a Redemption with an order into the use case's Order."""
    spec = redemption.spec
    assert spec.order is not None  # noqa: S101 - `feed` sends no others here
    return Order(
        key=redemption.key,
        uid=redemption.metadata.uid,
        request_hash=redemption.request_hash(),
        tenant_id=spec.customer.tenant_id,
        plan_id=spec.order.plan_id,
        apps=spec.order.apps,
        addons=spec.order.addons,
        subdomain=spec.subdomain,
        has_code=spec.has_code,
        deadline_seconds=spec.order.payment_deadline_seconds,
    )


def asks_for(body: Body, purchase: Purchase) -> bool:
    """Whether a Redemption belongs to a purchase: it made the purchase, or was created again with an equal spec."""
    try:
        return order_of(Redemption.parse(body)).made(purchase)
    except InvalidSpecError:
        return False


def _refusal(redemption: Redemption, refusal: Refusal) -> StatusUpdate:
    """Build the status of a refused order, with an Event unless the previous status has the same reason."""
    reason, message = refusal.reason, refusal.message
    previous = conditions.reason_in(redemption.conditions, conditions.ORDER_PLACED)
    event = None if previous == reason else UserEvent(reason, "Order", message, warning=True)
    status = purchase_status.refused(redemption, reason, message, refusal.decided_at)
    return StatusUpdate(status, "refused", event=event)


def _event(redemption: Redemption, purchase: Purchase, status: RedemptionStatus) -> UserEvent | None:
    """Return the Event for the final state of a purchase, or for the undo of its code; None when it was reported."""
    reason, message = purchase_status.summary(purchase)
    before = redemption.conditions
    if purchase.state not in _OPEN and conditions.reason_in(before, conditions.PAYMENT_SETTLED) != reason:
        return UserEvent(reason, "Order", message, warning=reason is not Reason.COMPLETED)
    undone = conditions.reason_in(status.conditions, conditions.REDEEMED) == Reason.ROLLED_BACK
    if undone and conditions.reason_in(before, conditions.REDEEMED) != Reason.ROLLED_BACK:
        return UserEvent(Reason.ROLLED_BACK, "Undo", purchase_status.CODE_UNDONE, warning=True)
    return None

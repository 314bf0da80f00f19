"""Redemption with an order: price it, place it, bring it to the checkout, to its payment and to its Organization.

Level-triggered: whatever the ledger says of the purchase is written into the status, and what is left to do for it is
done. It has a queue of its own, so that a payment processor that is slow to answer stops no other Redemption.
See also: `queue` calls `reconcile`, `requests` knows the code, `checkout` has prices and the payment processor,
`organization` what was bought, `purchase_status` words and `answers` writes the status; `purchases` comes by
periodically for what nobody asks for any more.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from voucher_operator.controllers.organization import Organizations, OrganizationStatus
from voucher_operator.controllers.purchase import status as purchase_status
from voucher_operator.controllers.redemption import status as redemption_status
from voucher_operator.controllers.redemption.controller import parse
from voucher_operator.controllers.redemption.request_builder import NO_CODE, GoneError, RequestBuilder
from voucher_operator.controllers.redemption.result_writer import Answer, Note, ResultWriter
from voucher_operator.failpoints import Step, failpoint
from voucher_operator.kube.cache import Cache
from voucher_operator.kube.client import Body
from voucher_operator.kube.work_queue import Result
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Line, Purchase, PurchaseRequest, PurchaseResult, PurchaseState
from voucher_operator.ledger.types import LedgerInfo, RedeemRequest
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import (
    CurrencyMismatchError,
    InvalidOrderError,
    InvalidSpecError,
    TerminalError,
    TransientError,
    VoucherNotReadyError,
)
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption, RedemptionStatus

_TOLD: Final = (PurchaseState.COMPLETED, PurchaseState.CANCELLED, PurchaseState.ROLLED_BACK, PurchaseState.REFUNDED)
"""People are told of an end, not of the way."""


@dataclass(slots=True)
class PurchaseController:
    """Reconciles Redemptions with an order. `deadline` is for orders that name none, in seconds."""

    ledger: Ledger
    cache: Cache
    requests: RequestBuilder
    answers: ResultWriter
    catalog: Catalog
    checkout: Checkout
    organizations: Organizations
    deadline: int
    any_tenant: bool
    """Whether a Redemption may spend a customer's credit for another tenant than the ledger's."""
    checkouts: asyncio.Semaphore
    """How many may ask the payment processor at once: fewer than there are workers, so that what needs none goes on."""
    delivered: dict[Key, datetime] = field(default_factory=dict)
    """The ends that Redemptions have just been told of; `purchases` has the ledger note them."""
    _reopened: set[str] = field(default_factory=set)
    _info: LedgerInfo | None = None

    def reopen(self, body: Body, key: str) -> None:
        """Reconcile a Redemption although it is finished: its purchase has gone on."""
        self.cache.put(body)
        self._reopened.add(key)

    async def reconcile(self, key: str) -> Result:
        """Bring one order as far as it goes now; raises what may pass and could not be told."""
        await self.answers.confirm(key)
        body = self.cache.get(key)
        if body is None or (body["status"].get("finished") and key not in self._reopened):
            return self._forget(key)
        try:
            redemption = parse(body)
        except InvalidSpecError as error:
            if body["status"].get("finished"):
                self.cache.drop_object(body)
                return self._forget(key)
            return await self.answers.invalid(key, body, error)
        try:
            answer = await self._answer(redemption)
        except GoneError:
            return self._forget(key)
        except VoucherNotReadyError as error:
            answer = await self._of_another_currency(redemption, error)
        except TransientError as error:
            answer = Answer(redemption_status.waiting(redemption, error), again=True)
        except TerminalError as error:
            answer = Answer(redemption_status.stalled(redemption, error))
        result = await self.answers.give(key, body, answer)
        if answer.finished and result is Result.DONE:
            if answer.end is not None:
                self.delivered[redemption.key] = answer.end
            self._forget(key)
        return result

    async def _answer(self, redemption: Redemption) -> Answer:
        self.requests.outage.check()
        purchase = await self._known(redemption) if redemption.status.get("orderID") else None
        if purchase is None:
            placed = await self._place(redemption)
            if isinstance(placed, Answer):
                return placed
            purchase = placed
        return await self._bring_on(redemption, purchase)

    async def _known(self, redemption: Redemption) -> Purchase | None:
        """Read what this very request has bought, by this object or by one before it of the same name."""
        purchase = await self.ledger.purchase_of(redemption.key)
        return purchase if purchase is not None and _made(redemption, purchase) else None

    async def _place(self, redemption: Redemption) -> Purchase | Answer:
        """Price and place an order, or read what became of it before."""
        currency = await self._currency()
        try:
            lines = await self._quote(redemption, currency)
            await self._check_subdomain(redemption)
            request = await self.requests.of(redemption)
        except (InvalidOrderError, CurrencyMismatchError, TransientError) as error:
            # What was placed stands, whatever has become of the catalog since, of the Secret or of the Voucher.
            if (known := await self._known(redemption)) is not None:
                return known
            if isinstance(error, TransientError):
                raise
            return await self._refuse(redemption, error.reason, error.message)
        if request.code == NO_CODE and redemption.spec.has_code:
            return await self._without_voucher(redemption, request)
        async with failpoint(Step.PLACE):
            result = await self.ledger.purchase(await self._request(redemption, request, lines))
        self.requests.answered(request, result.refusal)
        if result.purchase is not None:
            return result.purchase
        return self._refused(redemption, result)

    async def _quote(self, redemption: Redemption, currency: str) -> tuple[Line, ...]:
        order = redemption.spec.order
        assert order is not None  # noqa: S101 - `watch.Feed` hands over no others
        return await self.catalog.quote(order.plan_id, order.apps, order.addons, currency)

    async def _check_subdomain(self, redemption: Redemption) -> None:
        """Raise InvalidOrderError for another tenant's: what is bought could never be made."""
        name, tenant = redemption.spec.subdomain, redemption.spec.customer.tenant_id
        if await self.organizations.is_taken(redemption.metadata.namespace, name, tenant):
            raise InvalidOrderError(f"Subdomain {name} belongs to another tenant: order with another one.")

    async def _request(
        self, redemption: Redemption, request: RedeemRequest, lines: tuple[Line, ...]
    ) -> PurchaseRequest:
        order = redemption.spec.order
        assert order is not None  # noqa: S101 - as above
        rules = await self.checkout.rules()
        return PurchaseRequest(
            redeem=request,
            plan_id=order.plan_id,
            apps=order.apps,
            addons=order.addons,
            lines=lines,
            total_minor=sum(line.price_minor for line in lines),
            subdomain=redemption.spec.subdomain,
            payable=self.checkout.fault is None,
            step_minor=rules.step_minor,
            minimum_minor=rules.minimum_minor,
            deadline_seconds=order.payment_deadline_seconds or self.deadline,
            any_tenant=self.any_tenant,
        )

    async def _without_voucher(self, redemption: Redemption, request: RedeemRequest) -> Purchase | Answer:
        """Refuse an order whose voucher does not exist: it must not be paid from the balance instead."""
        result = await self.ledger.redeem(request)
        self.requests.answered(request, result.refusal)
        if result.refusal is None and (known := await self.ledger.purchase_of(redemption.key)) is not None:
            return known
        reason = result.refusal or Reason.VOUCHER_NOT_FOUND
        return self._answered(redemption, reason, PurchaseResult(redemption.key, result.decided_at))

    async def _of_another_currency(self, redemption: Redemption, error: VoucherNotReadyError) -> Answer:
        """Refuse a code that will never come, for it was issued in a currency that the ledger does not count in."""
        try:
            mismatched = await self.requests.is_mismatched(redemption)
        except TransientError:
            mismatched = False
        if not mismatched:
            return Answer(redemption_status.waiting(redemption, error), again=True)
        reason = Reason.CURRENCY_MISMATCH
        return await self._refuse(redemption, reason, purchase_status.ORDER_REFUSALS[reason])

    def _refused(self, redemption: Redemption, result: PurchaseResult) -> Answer:
        return self._answered(redemption, result.refusal or Reason.INVALID_ORDER, result)

    async def _refuse(self, redemption: Redemption, reason: Reason, message: str) -> Answer:
        """Refuse what the ledger was not asked for."""
        return _refusal(redemption, reason, message, (await self.ledger.info()).now)

    def _answered(self, redemption: Redemption, reason: Reason, result: PurchaseResult) -> Answer:
        return _refusal(redemption, reason, purchase_status.ORDER_REFUSALS[reason], result.decided_at)

    async def _bring_on(self, redemption: Redemption, purchase: Purchase) -> Answer:
        """Do what is left to do for a purchase, and say how it stands then."""
        waits: TransientError | None = None
        standing: OrganizationStatus | None = None
        if purchase.state is PurchaseState.PENDING:
            try:
                purchase = await self._check_out(purchase)
            except TransientError as error:
                waits = error
        if purchase.state is PurchaseState.COMPLETED:
            standing = await self.organizations.ensure(purchase)
        status = purchase_status.of(redemption, purchase, await self._currency(), waits=waits, organization=standing)
        again = purchase.state is PurchaseState.PENDING or (standing is not None and not standing.settled)
        return Answer(status, purchase.state.value, again, _note(redemption, purchase, status), purchase.settled_at)

    async def _check_out(self, purchase: Purchase) -> Purchase:
        """Drive a pending purchase, as `Checkout.advance`; as it is when too many are under way: it comes again."""
        if self.checkouts.locked():
            return purchase
        async with self.checkouts:
            return await self.checkout.advance(purchase)

    async def _currency(self) -> str:
        if self._info is None:
            self._info = await self.ledger.info()
        return self._info.currency

    def _forget(self, key: str) -> Result:
        self._reopened.discard(key)
        self.requests.forget(key)
        return Result.DONE


def asks_for(body: Body, purchase: Purchase) -> bool:
    """Whether a Redemption is the one that made a purchase, or asks for the very same: created anew, and readable."""
    try:
        return _made(parse(body), purchase)
    except InvalidSpecError:
        return False


def _made(redemption: Redemption, purchase: Purchase) -> bool:
    return redemption.metadata.uid == purchase.uid or redemption.request_hash() == purchase.request_hash


def _refusal(redemption: Redemption, reason: Reason, message: str, at: datetime) -> Answer:
    """Refuse an order; it makes an event unless the status says so already."""
    said = conditions.reason_in(redemption.conditions, conditions.ORDER_PLACED)
    note = None if said == reason else Note(reason, "Order", message, warning=True)
    return Answer(purchase_status.refused(redemption, reason, message, at), "refused", note=note)


def _note(redemption: Redemption, purchase: Purchase, status: RedemptionStatus) -> Note | None:
    """Return the event for how a purchase ended, or for its code's undo; None when the status said so before."""
    reason, message = purchase_status.summary(purchase)
    before = redemption.conditions
    if purchase.state in _TOLD and conditions.reason_in(before, conditions.PAYMENT_SETTLED) != reason:
        return Note(reason, "Order", message, warning=purchase.state is not PurchaseState.COMPLETED)
    undone = conditions.reason_in(status.conditions, conditions.REDEEMED) == Reason.ROLLED_BACK
    if undone and conditions.reason_in(before, conditions.REDEEMED) != Reason.ROLLED_BACK:
        return Note(Reason.ROLLED_BACK, "Undo", purchase_status.CODE_UNDONE, warning=True)
    return None

"""Use case: order a plan, paid by credit first and by card for the rest.

The order is priced before anything is consumed; `place` then writes it in one transaction of the ledger, and `advance`
creates the checkout. A placed order is not affected by later changes of the catalog, of the code's source or of the
Voucher: the same request returns it. See also: `ledger.purchase` places; `payments.purchase_saga` creates the checkout;
`refusals` has the messages.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from voucher_operator.failpoints import Step, failpoint
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Line, Purchase, PurchaseRequest, PurchaseResult
from voucher_operator.ledger.types import RedeemRequest
from voucher_operator.payments import checkout_limits
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.currency import CurrencyRules
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import CurrencyMismatchError, InvalidOrderError, TransientError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason
from voucher_operator.services.checkout_slots import CheckoutSlots
from voucher_operator.services.redeem import RedeemService
from voucher_operator.services.refusals import ORDER_REFUSALS, Refusal, too_many_attempts


class SubdomainDirectory(Protocol):
    """Knows which tenant owns which subdomain."""

    async def is_taken(self, namespace: str | None, name: str, tenant_id: str) -> bool:
        """Whether another tenant has this subdomain; False when that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An order from any origin. `uid` and `request_hash` distinguish a repeated request from another one.

    `has_code`: it also redeems a code; without one an order is paid from the balance alone. `deadline_seconds`: the
    time limit for creating the checkout; None for the setting.
    """

    key: Key
    uid: str
    request_hash: str
    tenant_id: str
    plan_id: str
    apps: tuple[str, ...]
    addons: tuple[str, ...]
    subdomain: str
    has_code: bool
    deadline_seconds: int | None = None

    def made(self, purchase: Purchase) -> bool:
        """Whether this request has made the purchase, or another one with equal content."""
        return self.uid == purchase.uid or self.request_hash == purchase.request_hash


CodeSource = Callable[[], Awaitable[RedeemRequest]]
"""Returns the ledger's request, with or without a code; called once the order has a price.

Raises TransientError while the code cannot be read.
"""


@dataclass(slots=True)
class OrderService:
    """Places and advances orders. Safe for concurrent use within one event loop."""

    ledger: Ledger
    catalog: Catalog
    checkout: Checkout
    redeems: RedeemService
    subdomains: SubdomainDirectory
    deadline: int
    """Default time limit for creating a checkout, in seconds."""
    any_tenant: bool
    """Whether a request may spend a customer's credit for another tenant than the one in the ledger."""
    checkouts: CheckoutSlots
    """Limits concurrent calls of the payment processor: fewer than workers, so that other orders are not delayed."""

    async def currency(self) -> str:
        """Return the ledger's currency. Raises LedgerUnavailableError."""
        return await self.redeems.currency()

    async def find(self, order: Order) -> Purchase | None:
        """Read the purchase that this request made before; None when there is none."""
        purchase = await self.ledger.purchase_of(order.key)
        return purchase if purchase is not None and order.made(purchase) else None

    async def place(self, order: Order, source: CodeSource) -> Purchase | Refusal:
        """Price and place an order, or read the earlier result for this key.

        Raises TransientError (LedgerUnavailableError, CatalogUnavailableError, TooManyAttemptsError, and those of
        `source`).
        """
        currency = await self.currency()
        try:
            lines = await self.catalog.quote(order.plan_id, order.apps, order.addons, currency)
            await self._check_subdomain(order)
            request = await source()
        except (InvalidOrderError, CurrencyMismatchError, TransientError) as error:
            if (found := await self.find(order)) is not None:
                return found
            if isinstance(error, TransientError):
                raise
            return await self.refuse(error.reason, error.message)
        if order.has_code and not request.code:
            return await self._refuse_code(request)
        return await self._place(order, request, lines)

    async def refuse(self, reason: Reason, message: str = "") -> Refusal:
        """Return a refusal that the ledger does not record."""
        return Refusal(reason, message or ORDER_REFUSALS[reason], (await self.ledger.info()).now)

    async def advance(self, purchase: Purchase) -> Purchase:
        """Advance a pending purchase as `Checkout.advance`; return it unchanged when too many run: call again."""
        origin = purchase.key.namespace or ""
        if self.checkouts.is_full(origin):
            return purchase
        with self.checkouts.held(origin):
            return await self.checkout.advance(purchase)

    async def cancel_pending(self, purchase: Purchase) -> Purchase:
        """Roll back a pending purchase whose Redemption was deleted; return any other unchanged."""
        return await self.checkout.cancel_pending(purchase.key) or purchase

    async def _place(self, order: Order, request: RedeemRequest, lines: tuple[Line, ...]) -> Purchase | Refusal:
        rules = await self.checkout.rules()
        fault = checkout_limits.fault(lines, rules)
        purchase_request = self._request(order, request, lines, rules, payable=fault is None)
        async with failpoint(Step.PLACE):
            result = await self.ledger.purchase(purchase_request)
        if result.retry_at is not None:
            raise too_many_attempts(result.decided_at, result.retry_at)
        if result.refusal is None and request.code:
            self.redeems.codes.note_redeemed(request.code)
        if result.refusal is Reason.INVALID_ORDER:
            return Refusal(result.refusal, fault or checkout_limits.too_small(rules), result.decided_at)
        return result.purchase or _refusal(result.refusal or Reason.INVALID_ORDER, result, request)

    async def _check_subdomain(self, order: Order) -> None:
        """Raise InvalidOrderError for another tenant's subdomain: its Organization could not be created."""
        if await self.subdomains.is_taken(order.key.namespace, order.subdomain, order.tenant_id):
            raise InvalidOrderError(f"Subdomain {order.subdomain} belongs to another tenant: order with another one.")

    def _request(
        self, order: Order, request: RedeemRequest, lines: tuple[Line, ...], rules: CurrencyRules, *, payable: bool
    ) -> PurchaseRequest:
        """Build the ledger's request; `payable`: a card can pay these lines, as far as Stripe is concerned."""
        total = sum(line.price_minor for line in lines)
        return PurchaseRequest(
            redeem=request,
            plan_id=order.plan_id,
            apps=order.apps,
            addons=order.addons,
            lines=lines,
            total_minor=total,
            subdomain=order.subdomain,
            payable=self.checkout.fault is None,
            step_minor=rules.step_minor,
            minimum_minor=rules.minimum_minor if payable else total + 1,
            deadline_seconds=order.deadline_seconds or self.deadline,
            any_tenant=self.any_tenant,
        )

    async def _refuse_code(self, request: RedeemRequest) -> Purchase | Refusal:
        """Refuse an order whose voucher does not exist: it must not be paid from the balance alone."""
        result = await self.redeems.redeem(request)
        if result.refusal is None and (found := await self.ledger.purchase_of(request.key)) is not None:
            return found
        reason = result.refusal or Reason.VOUCHER_NOT_FOUND
        return _refusal(reason, PurchaseResult(request.key, result.decided_at), request)


def _refusal(reason: Reason, result: PurchaseResult, request: RedeemRequest) -> Refusal:
    provisional = request.provisional and reason is Reason.VOUCHER_NOT_FOUND
    return Refusal(reason, ORDER_REFUSALS[reason], result.decided_at, provisional)

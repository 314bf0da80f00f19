"""All calls of Stripe. Each request is idempotent: a repeated one creates nothing new.

The idempotency keys are derived from the purchase and the step, and the content only depends on the purchase and the
settings (and, in steps, on how far two clocks differ). See also: `stripe_calls` has what each call needs;
`stripe_requests` builds the requests; `purchase_saga` has the order of the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import stripe

from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.payments import stripe_requests
from voucher_operator.payments.currency import CurrencyRules
from voucher_operator.payments.stripe_calls import ExistsError, StripeCalls, body_of, items_of, text
from voucher_operator.payments.stripe_errors import unreadable
from voucher_operator.payments.stripe_requests import FirstPayment, InvoiceMoney
from voucher_operator.resources.errors import PaymentRejectedError
from voucher_operator.settings import Settings

if TYPE_CHECKING:
    from stripe import RequestOptions

_UNEXPECTED: Final = "Stripe would charge another amount than is due: make Stripe's prices equal to the catalog's."
_ONE_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class StripeSession:
    """A Checkout Session; `amount` is charged to the card now, in Stripe's unit of `currency` (lower-case).

    `alone` is false where the order may have other sessions, of idempotency keys that are used up.
    """

    id: str
    url: str
    amount: int | None
    currency: str
    expires_at: datetime
    order_id: str | None
    body: Mapping[str, Any]
    alone: bool = True


class StripeGateway:
    """Stripe's API. Safe for concurrent use within one event loop; key and addresses come from the settings.

    Every method raises PaymentProcessorUnavailableError for a transient failure, PaymentRejectedError for a permanent
    one, and PaymentProcessorNotConfiguredError without a key.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._calls = StripeCalls(settings)

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    async def customer(self, purchase: Purchase) -> str:
        """Create the customer of a purchase and return its id."""
        params = stripe_requests.customer(purchase, self._settings.sovereign)

        async def make(client: stripe.StripeClient, options: "RequestOptions") -> object:
            return await client.v1.customers.create_async(params, options)

        body, _ = await self._calls.once(purchase, "customer", make, lambda: self._customer_of(purchase))
        return text(body, "id")

    async def coupon(self, purchase: Purchase, rules: CurrencyRules) -> str | None:
        """Create the coupon for the credit held, and return its id; None when no credit is held."""
        if purchase.held_minor == 0:
            return None
        params = stripe_requests.coupon(purchase, self._settings.sovereign, rules)

        async def make(client: stripe.StripeClient, options: "RequestOptions") -> object:
            return await client.v1.coupons.create_async(params, options)

        try:
            body, _ = await self._calls.once(purchase, "coupon", make, _nothing)
            text(body, "id")
        except ExistsError:
            pass  # its id contains the order id, and an order's held credit never changes
        return params["id"]

    async def session(
        self,
        purchase: Purchase,
        customer_id: str,
        coupon_id: str | None,
        rules: CurrencyRules,
        clock_offset: timedelta = timedelta(),
    ) -> StripeSession:
        """Create the checkout session of a purchase; `coupon_id` as `coupon` returned it.

        `clock_offset` is PostgreSQL's clock minus this machine's.

        Raises PaymentRejectedError also for a session that would charge another amount than is due.
        """
        params = stripe_requests.session(purchase, customer_id, coupon_id, self._settings, rules, clock_offset)

        async def make(client: stripe.StripeClient, options: "RequestOptions") -> object:
            return await client.v1.checkout.sessions.create_async(params, options)

        async def find() -> Mapping[str, Any] | None:
            # One that is expired can no longer be paid: the customer needs another.
            made = [one for one in await self._sessions(purchase, customer_id) if one.body.get("status") != "expired"]
            return next((one.body for one in sorted(made, key=lambda one: one.body.get("status") != "open")), None)

        body, used_up = await self._calls.once(purchase, "session", make, find)
        found = replace(_session(body), alone=used_up == 0)
        if found.amount != rules.to_stripe(purchase.due_minor) or found.currency != rules.currency.lower():
            raise PaymentRejectedError(_UNEXPECTED)
        return found

    async def retrieve(self, session_id: str) -> StripeSession:
        """Read a session."""
        async with self._calls.call() as client:
            return _session(body_of(await client.v1.checkout.sessions.retrieve_async(session_id)))

    async def expire(self, session_id: str) -> None:
        """Expire an open session, so that it can no longer be paid."""
        async with self._calls.call(tries=3) as client:
            await client.v1.checkout.sessions.expire_async(session_id, options={"max_network_retries": 2})

    async def open_sessions(self, purchase: Purchase) -> list[StripeSession]:
        """List the open sessions of a purchase by its customer, also those that the ledger did not record."""
        if purchase.stripe_customer_id is None:
            return []
        found = await self._sessions(purchase, purchase.stripe_customer_id)
        return [one for one in found if one.body.get("status") == "open"]

    async def subscriptions(self, purchase: Purchase) -> list[str]:
        """List the ids of the subscriptions of a purchase that have not ended, by its customer."""
        if purchase.stripe_customer_id is None:
            return []
        async with self._calls.call() as client:
            listed = await client.v1.subscriptions.list_async(
                {"customer": purchase.stripe_customer_id, "limit": _ONE_PAGE}
            )
        return [text(one, "id") for one in items_of(listed) if stripe_requests.is_active(one, purchase)]

    async def unsubscribe(self, subscription_id: str) -> None:
        """Cancel a subscription at once: nothing more is charged. PaymentRejectedError when it has ended already."""
        async with self._calls.call() as client:
            await client.v1.subscriptions.cancel_async(subscription_id)

    async def first_payment(self, payment_intent: str) -> FirstPayment | None:
        """Find the order whose first month a payment is for; None for later months and for other payments."""
        async with self._calls.call() as client:
            listed = await client.v1.invoice_payments.list_async(
                {
                    "payment": {"type": "payment_intent", "payment_intent": payment_intent},
                    "expand": ["data.invoice"],
                    "limit": 1,
                }
            )
        return next(filter(None, map(stripe_requests.first_payment, items_of(listed))), None)

    async def session_of(self, subscription_id: str) -> str | None:
        """Find the checkout session that created a subscription; None for one that no checkout created."""
        async with self._calls.call() as client:
            listed = await client.v1.checkout.sessions.list_async({"subscription": subscription_id, "limit": 1})
        session = stripe_requests.creating_session(subscription_id, items_of(listed))
        return None if session is None else text(session, "id")

    async def money(self, invoice_id: str) -> InvoiceMoney:
        """Read the payments and refunds of an invoice."""
        async with self._calls.call() as client:
            listed = await client.v1.invoice_payments.list_async(
                {
                    "invoice": invoice_id,
                    "expand": ["data.payment.payment_intent.latest_charge"],
                    "limit": _ONE_PAGE,
                }
            )
        return stripe_requests.invoice_money(items_of(listed))

    async def _customer_of(self, purchase: Purchase) -> Mapping[str, Any] | None:
        """Find the customer of a purchase, whose id the ledger does not have."""
        async with self._calls.call() as client:
            listed = await client.v1.customers.list_async({"email": purchase.email, "limit": _ONE_PAGE})
        return next((one for one in items_of(listed) if stripe_requests.is_of(one, purchase)), None)

    async def _sessions(self, purchase: Purchase, customer_id: str) -> list[StripeSession]:
        """List the sessions of a purchase, in whatever state; the customer has no others than the purchase's."""
        async with self._calls.call() as client:
            listed = await client.v1.checkout.sessions.list_async({"customer": customer_id, "limit": _ONE_PAGE})
        return [_session(one) for one in items_of(listed) if stripe_requests.is_of(one, purchase)]


async def _nothing() -> None:
    """Look for nothing: a second object of the same id is refused."""


def _session(body: Mapping[str, Any]) -> StripeSession:
    labels = body.get("metadata")
    try:
        return StripeSession(
            id=text(body, "id"),
            url=body.get("url") or "",
            amount=body.get("amount_total"),
            currency=body.get("currency") or "",
            expires_at=datetime.fromtimestamp(body["expires_at"], UTC),
            order_id=labels.get("order_id") if isinstance(labels, Mapping) else None,
            body=body,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise unreadable() from None

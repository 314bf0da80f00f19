"""All calls of Stripe. Each request is idempotent: a repeated one creates nothing new.

The idempotency keys are derived from the purchase and the step, and the content only depends on the purchase and the
settings (and, in steps, on how far two clocks differ): Stripe refuses a key that is used with another content. Stripe
stores a key for a day; a purchase is rolled back long before. See also: `stripe_requests` builds the requests;
`stripe_errors` translates the errors; `purchase_saga` has the order of the steps.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import stripe

from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.payments import stripe_requests
from voucher_operator.payments.currency import CurrencyRules
from voucher_operator.payments.stripe_errors import no_key, translate, unreachable, unreadable
from voucher_operator.payments.stripe_requests import FirstPayment, InvoiceMoney
from voucher_operator.resources.errors import PaymentProcessorNotConfiguredError, PaymentRejectedError
from voucher_operator.settings import Settings

API_VERSION: Final = "2026-08-26.dahlia"
"""Version of the API, not of the library: an upgrade of the library does not change requests and responses."""
_EXISTS: Final = "resource_already_exists"
_UNEXPECTED: Final = "Stripe would charge another amount than is due: make Stripe's prices equal to the catalog's."
_ONE_PAGE: Final = 100
_A_KEY: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class StripeSession:
    """A Checkout Session; `amount` is charged to the card now, in Stripe's unit of `currency` (lower-case)."""

    id: str
    url: str
    amount: int | None
    currency: str
    expires_at: datetime
    order_id: str | None
    body: Mapping[str, Any]


class StripeGateway:
    """Stripe's API. Safe for concurrent use within one event loop; key and addresses come from the settings.

    Every method raises PaymentProcessorUnavailableError for a transient failure, PaymentRejectedError for a permanent
    one, and PaymentProcessorNotConfiguredError without a key.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        if ca_bundle := os.environ.get("SSL_CERT_FILE"):
            stripe.ca_bundle_path = ca_bundle  # the library does not read the variable
        self._http = stripe.HTTPXClient(timeout=settings.stripe_timeout)
        self._client: stripe.StripeClient | None = None
        self._key = ""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def customer(self, purchase: Purchase) -> str:
        """Create the customer of a purchase and return its id."""
        options = stripe_requests.once(purchase, "customer")
        async with self._call() as client:
            made = await client.v1.customers.create_async(
                stripe_requests.customer(purchase, self._settings.sovereign), options
            )
        return _text(_body(made), "id")

    async def coupon(self, purchase: Purchase, rules: CurrencyRules) -> str | None:
        """Create the coupon for the credit held, and return its id; None when no credit is held."""
        if purchase.held_minor == 0:
            return None
        params = stripe_requests.coupon(purchase, self._settings.sovereign, rules)
        try:
            async with self._call() as client:
                made = await client.v1.coupons.create_async(params, stripe_requests.once(purchase, "coupon"))
            _text(_body(made), "id")
        except _ExistsError:
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
        try:
            async with self._call() as client:
                options = stripe_requests.once(purchase, "session")
                found = _session(_body(await client.v1.checkout.sessions.create_async(params, options)))
        except _OtherContentError as error:
            found = await self._made_before(purchase, customer_id, error)
        if found.amount != rules.to_stripe(purchase.due_minor) or found.currency != rules.currency.lower():
            raise PaymentRejectedError(_UNEXPECTED)
        return found

    async def retrieve(self, session_id: str) -> StripeSession:
        """Read a session."""
        async with self._call() as client:
            return _session(_body(await client.v1.checkout.sessions.retrieve_async(session_id)))

    async def expire(self, session_id: str) -> None:
        """Expire an open session, so that it can no longer be paid."""
        async with self._call(tries=3) as client:
            await client.v1.checkout.sessions.expire_async(session_id, options={"max_network_retries": 2})

    async def open_sessions(self, purchase: Purchase) -> list[StripeSession]:
        """List the open sessions of a purchase by its customer, also those that the ledger did not record."""
        if purchase.stripe_customer_id is None:
            return []
        async with self._call() as client:
            listed = await client.v1.checkout.sessions.list_async(
                {"customer": purchase.stripe_customer_id, "status": "open", "limit": _ONE_PAGE}
            )
        found = [_session(one) for one in _listed(listed)]
        return [one for one in found if one.order_id == purchase.order_id]

    async def subscriptions(self, purchase: Purchase) -> list[str]:
        """List the ids of the subscriptions of a purchase that have not ended, by its customer."""
        if purchase.stripe_customer_id is None:
            return []
        async with self._call() as client:
            listed = await client.v1.subscriptions.list_async(
                {"customer": purchase.stripe_customer_id, "limit": _ONE_PAGE}
            )
        return [_text(one, "id") for one in _listed(listed) if stripe_requests.is_active(one, purchase)]

    async def unsubscribe(self, subscription_id: str) -> None:
        """Cancel a subscription at once: nothing more is charged. PaymentRejectedError when it has ended already."""
        async with self._call() as client:
            await client.v1.subscriptions.cancel_async(subscription_id)

    async def first_payment(self, payment_intent: str) -> FirstPayment | None:
        """Find the order whose first month a payment is for; None for later months and for other payments."""
        async with self._call() as client:
            listed = await client.v1.invoice_payments.list_async(
                {
                    "payment": {"type": "payment_intent", "payment_intent": payment_intent},
                    "expand": ["data.invoice"],
                    "limit": 1,
                }
            )
        return next(filter(None, map(stripe_requests.first_payment, _listed(listed))), None)

    async def session_of(self, subscription_id: str) -> str | None:
        """Find the checkout session that created a subscription; None for one that no checkout created."""
        async with self._call() as client:
            listed = await client.v1.checkout.sessions.list_async({"subscription": subscription_id, "limit": 1})
        session = stripe_requests.creating_session(subscription_id, _listed(listed))
        return None if session is None else _text(session, "id")

    async def money(self, invoice_id: str) -> InvoiceMoney:
        """Read the payments and refunds of an invoice."""
        async with self._call() as client:
            listed = await client.v1.invoice_payments.list_async(
                {
                    "invoice": invoice_id,
                    "expand": ["data.payment.payment_intent.latest_charge"],
                    "limit": _ONE_PAGE,
                }
            )
        return stripe_requests.invoice_money(_listed(listed))

    async def _made_before(self, purchase: Purchase, customer_id: str, error: Exception) -> StripeSession:
        """Find the session that an earlier attempt created before the settings changed; there is never a second one."""
        async with self._call() as client:
            answer = await client.v1.checkout.sessions.list_async(
                {"customer": customer_id, "status": "open", "limit": _ONE_PAGE}
            )
        for one in map(_session, _listed(answer)):
            if one.order_id == purchase.order_id:
                return one
        raise PaymentRejectedError(*error.args) from None

    @asynccontextmanager
    async def _call(self, tries: int = 1) -> AsyncIterator[stripe.StripeClient]:
        # The time limit of the library restarts with each byte that is received.
        try:
            async with asyncio.timeout(self._settings.stripe_timeout * tries * 1.5):
                yield self._current()
        except TimeoutError:
            raise unreachable() from None
        except stripe.StripeError as error:
            ours = translate(error)
            if isinstance(error, stripe.IdempotencyError):
                raise _OtherContentError(*ours.args) from None
            if error.code == _EXISTS:
                raise _ExistsError(*ours.args) from None
            raise ours from None

    def _current(self) -> stripe.StripeClient:
        """Return a client with the current key."""
        key = self._settings.stripe_key()
        if not key:
            raise PaymentProcessorNotConfiguredError(self._settings.checkout_fault())
        if not _A_KEY.fullmatch(key):
            raise no_key()
        if self._client is None or key != self._key:
            self._key = key
            self._client = stripe.StripeClient(
                key,
                stripe_version=API_VERSION,
                base_addresses={"api": self._settings.stripe_api_base.rstrip("/")},
                http_client=self._http,
                max_network_retries=0,
            )
        return self._client


class _OtherContentError(PaymentRejectedError):
    """The idempotency key was used with another content before."""


class _ExistsError(PaymentRejectedError):
    """An object with this id exists already."""


def _session(body: Mapping[str, Any]) -> StripeSession:
    labels = body.get("metadata")
    try:
        return StripeSession(
            id=_text(body, "id"),
            url=body.get("url") or "",
            amount=body.get("amount_total"),
            currency=body.get("currency") or "",
            expires_at=datetime.fromtimestamp(body["expires_at"], UTC),
            order_id=labels.get("order_id") if isinstance(labels, Mapping) else None,
            body=body,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise unreadable() from None


def _body(answer: object) -> Mapping[str, Any]:
    """Return the content of a response; a proxy may respond instead of Stripe."""
    if isinstance(answer, stripe.StripeObject):
        return answer.to_dict()
    raise unreadable()


def _listed(answer: object) -> list[Mapping[str, Any]]:
    items = _body(answer).get("data")
    if isinstance(items, list) and all(isinstance(item, Mapping) for item in items):
        return items
    raise unreadable()


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if isinstance(value, str) and value:
        return value
    raise unreadable()

"""Reads from Stripe what its events do not contain: which payment was refunded or disputed, and the refunded amount.

A charge has no order id. Its payment intent has an invoice, the invoice has the order and the subscription, and the
subscription has the one checkout session that created it. So a refund is assigned to the payment that it refunds,
whether the ledger has recorded that payment or not, and never to the order alone. The refunded amount is read too,
because events arrive in any order and a refund may fail later. See also: `stripe_events` reads events;
`ledger.payment.records` stores payments.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from voucher_operator.ledger.purchase.types import PaymentEffect, PaymentEvent
from voucher_operator.ledger.types import LedgerInfo
from voucher_operator.payments import stripe_events
from voucher_operator.resources.errors import OperatorError, PaymentRejectedError

if TYPE_CHECKING:
    from voucher_operator.payments.stripe_gateway import StripeGateway
    from voucher_operator.payments.stripe_requests import FirstPayment, InvoiceMoney

log = logging.getLogger(__name__)

_DETAILS_TIMEOUT: Final = 5.0
"""Seconds for reading the Stripe ids of a new payment: Stripe waits for the webhook's response."""
_OF_SESSION: Final = (PaymentEffect.PAID, PaymentEffect.PROCESSING)


class Clock(Protocol):
    """The part of the ledger that is used here."""

    async def info(self) -> LedgerInfo: ...  # noqa: D102


class PaymentReader:
    """Reads events, with calls of Stripe. Payments of another Sovereign than `sovereign` are not looked up.

    Methods raise LedgerUnavailableError, PaymentProcessorUnavailableError, PaymentRejectedError and
    PaymentProcessorNotConfiguredError.
    """

    def __init__(self, stripe: "StripeGateway", ledger: Clock, sovereign: str) -> None:
        self._stripe = stripe
        self._ledger = ledger
        self._sovereign = sovereign

    async def read(self, event: Mapping[str, Any], raw: bytes, currency: str) -> PaymentEvent:
        """Read a verified webhook event; for a new payment also its details, if Stripe returns them in time."""
        read = stripe_events.payment_event(event, raw, currency)
        if (intent := stripe_events.intent_of(event)) is not None:
            return await self._of_payment(read, event, intent, currency)
        if read.effect is not PaymentEffect.PAID or self._foreign(read.sovereign):
            return read
        try:
            async with asyncio.timeout(_DETAILS_TIMEOUT):
                return await self._with_details(read, currency)
        except (OperatorError, TimeoutError) as error:
            # A later look-up, or its refund, adds the ids.
            log.info("a payment is recorded without its Stripe ids: %s", error, extra=_extra(read))
            return read

    async def with_details(self, found: PaymentEvent, currency: str) -> PaymentEvent:
        """Add the state of the payment to a session that is PAID or PROCESSING, as far as our key may read it."""
        try:
            return await self._with_details(found, currency)
        except PaymentRejectedError as error:
            log.warning("cannot read the state of a payment: %s", error.message, extra={"reason": error.reason})
            return found

    async def _with_details(self, found: PaymentEvent, currency: str) -> PaymentEvent:
        if found.effect not in _OF_SESSION or found.payment is None or found.payment.invoice_id is None:
            return found
        seen_at = (await self._ledger.info()).now
        money = await self._stripe.money(found.payment.invoice_id)
        return stripe_events.with_details(found, money, seen_at, currency)

    async def _of_payment(
        self, read: PaymentEvent, event: Mapping[str, Any], intent: str, currency: str
    ) -> PaymentEvent:
        """Assign a refund or dispute to its payment; one of a later month, or of no order, is stored without effect."""
        first = await self._stripe.first_payment(intent)
        if first is None:
            return read
        if self._foreign(first.sovereign):
            return stripe_events.of_payment(read, intent, first, None)
        session_id = first.subscription_id and await self._stripe.session_of(first.subscription_id)
        bound = stripe_events.of_payment(read, intent, first, session_id or None)
        if bound.session_id is None:
            log.warning(
                "a refund or dispute belongs to no checkout of its order: check it at Stripe", extra=_extra(bound)
            )
        if stripe_events.is_dispute(event):
            return stripe_events.dispute(bound, event, currency)
        if stripe_events.is_failed_refund(event):
            log.warning("a refund failed: refund the money in another way", extra=_extra(bound))
        return await self._refund(bound, event, first, currency)

    async def _refund(
        self, bound: PaymentEvent, event: Mapping[str, Any], first: "FirstPayment", currency: str
    ) -> PaymentEvent:
        seen_at = (await self._ledger.info()).now
        money = await self._money(first.invoice_id)
        if money is None or money.payment_intent is None:
            assert bound.payment is not None  # noqa: S101 - `of_payment` has set it
            charge = stripe_events.refunded_charge(event, bound.payment.payment_intent or "")
            return stripe_events.refund(bound, charge, None, currency)
        return stripe_events.refund(bound, money, seen_at, currency)

    async def _money(self, invoice_id: str | None) -> "InvoiceMoney | None":
        if invoice_id is None:
            return None
        try:
            return await self._stripe.money(invoice_id)
        except PaymentRejectedError as error:
            # A restricted key may read invoices but not charges: the event has the amount.
            log.warning("cannot read the state of a payment: %s", error.message, extra={"reason": error.reason})
            return None

    def _foreign(self, sovereign: str | None) -> bool:
        return bool(sovereign and self._sovereign and sovereign != self._sovereign)


def _extra(event: PaymentEvent) -> dict[str, str]:
    return {"resource": "webhook", "key": event.event_id}

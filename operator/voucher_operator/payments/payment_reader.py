"""What Stripe's events leave out, asked of Stripe: which payment was refunded or disputed, and how much is refunded.

A charge names no order. Its payment intent leads to its invoice, the invoice to order and subscription, and the
subscription to the one checkout session that began it: so a refund is bound to the payment that it refunds, whether the
ledger has recorded that payment or not, and never to the order alone. How much is refunded is asked, too, for events
come in any order and a refund may fail later. See also: `stripe_events` reads; `ledger.payment.records` remembers.
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

_BRIEFLY: Final = 5.0
"""Seconds that the names of a payment may take which has just been made: Stripe waits for our answer."""
_OF_SESSION: Final = (PaymentEffect.PAID, PaymentEffect.PROCESSING)


class Clock(Protocol):
    """What is asked of the ledger."""

    async def info(self) -> LedgerInfo: ...  # noqa: D102


class PaymentReader:
    """Reads events with Stripe's help. `sovereign` is ours; payments of another one are not asked about.

    Methods raise LedgerUnavailableError, PaymentProcessorUnavailableError, PaymentRejectedError and
    PaymentProcessorNotConfiguredError.
    """

    def __init__(self, stripe: "StripeGateway", ledger: Clock, sovereign: str) -> None:
        self._stripe = stripe
        self._ledger = ledger
        self._sovereign = sovereign

    async def read(self, event: Mapping[str, Any], raw: bytes, currency: str) -> PaymentEvent:
        """Read a verified webhook event; of a payment that has just been made, what Stripe says soon enough."""
        read = stripe_events.payment_event(event, raw, currency)
        if (intent := stripe_events.intent_of(event)) is not None:
            return await self._of_payment(read, event, intent, currency)
        if read.effect is not PaymentEffect.PAID or self._foreign(read.sovereign):
            return read
        try:
            async with asyncio.timeout(_BRIEFLY):
                return await self._closer(read, currency)
        except (OperatorError, TimeoutError) as error:
            # A later look, or its refund, brings the names.
            log.info("a payment is recorded without its names at Stripe: %s", error, extra=_extra(read))
            return read

    async def closer(self, found: PaymentEvent, currency: str) -> PaymentEvent:
        """Say what became of the payment of a session that is PAID or PROCESSING, as far as our key may know."""
        try:
            return await self._closer(found, currency)
        except PaymentRejectedError as error:
            log.warning("cannot see what became of a payment: %s", error.message, extra={"reason": error.reason})
            return found

    async def _closer(self, found: PaymentEvent, currency: str) -> PaymentEvent:
        if found.effect not in _OF_SESSION or found.payment is None or found.payment.invoice_id is None:
            return found
        seen_at = (await self._ledger.info()).now
        money = await self._stripe.money(found.payment.invoice_id)
        return stripe_events.looked_closer(found, money, seen_at, currency)

    async def _of_payment(
        self, read: PaymentEvent, event: Mapping[str, Any], intent: str, currency: str
    ) -> PaymentEvent:
        """Bind a refund or a dispute to its payment; one of a later month, or of no order, is kept without effect."""
        first = await self._stripe.first_payment(intent)
        if first is None:
            return read
        if self._foreign(first.sovereign):
            return stripe_events.of_payment(read, intent, first, None)
        session_id = first.subscription_id and await self._stripe.session_of(first.subscription_id)
        bound = stripe_events.of_payment(read, intent, first, session_id or None)
        if bound.session_id is None:
            log.warning("money of an order is of no checkout: look at it at Stripe", extra=_extra(bound))
        if stripe_events.is_dispute(event):
            return stripe_events.dispute(bound, event, currency)
        if stripe_events.is_failed_refund(event):
            log.warning("a refund failed: give the money back in another way", extra=_extra(bound))
        return await self._refund(bound, event, first, currency)

    async def _refund(
        self, bound: PaymentEvent, event: Mapping[str, Any], first: "FirstPayment", currency: str
    ) -> PaymentEvent:
        seen_at = (await self._ledger.info()).now
        money = await self._money(first.invoice_id)
        if money is None or money.payment_intent is None:
            assert bound.payment is not None  # noqa: S101 - `of_payment` has set it
            said = stripe_events.refunded_charge(event, bound.payment.payment_intent or "")
            return stripe_events.refund(bound, said, None, currency)
        return stripe_events.refund(bound, money, seen_at, currency)

    async def _money(self, invoice_id: str | None) -> "InvoiceMoney | None":
        if invoice_id is None:
            return None
        try:
            return await self._stripe.money(invoice_id)
        except PaymentRejectedError as error:
            # A restricted key may read invoices and no charges: the event says how much it was.
            log.warning("cannot see what became of a payment: %s", error.message, extra={"reason": error.reason})
            return None

    def _foreign(self, sovereign: str | None) -> bool:
        return bool(sovereign and self._sovereign and sovereign != self._sovereign)


def _extra(event: PaymentEvent) -> dict[str, str]:
    return {"resource": "webhook", "key": event.event_id}

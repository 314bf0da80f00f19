"""The way of one purchase between the ledger and Stripe, and the way back.

`advance` drives a PENDING purchase to its checkout: customer, coupon, session at Stripe, and the ledger's note. The
process may die between any two: the next one repeats them all, and Stripe and the ledger give what they gave before.
What cannot succeed is compensated, first in the ledger and then, as well as it goes, at Stripe: a checkout that was
made and paid all the same is a mismatch that the ledger keeps for people. `look_up` asks what no webhook told, and ends
at Stripe what has ended in the ledger.
See also: `stripe_gateway`, `ledger.api`; the controllers call `advance` and `abandon`, a periodic pass `look_up`.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from voucher_operator import telemetry
from voucher_operator.failpoints import Step, failpoint
from voucher_operator.ledger.purchase.types import PaymentEffect, PaymentEvent, Purchase, PurchaseState, Received
from voucher_operator.ledger.types import LedgerInfo
from voucher_operator.payments import stripe_events
from voucher_operator.payments.currency import CurrencyRules, rules
from voucher_operator.payments.payment_reader import PaymentReader
from voucher_operator.resources.errors import (
    OperatorError,
    PaymentProcessorNotConfiguredError,
    PaymentRejectedError,
    TerminalError,
)
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason
from voucher_operator.settings import Settings

if TYPE_CHECKING:
    from voucher_operator.payments.stripe_gateway import StripeGateway, StripeSession

log = logging.getLogger(__name__)


class PurchaseLedger(Protocol):
    """What the saga asks of `ledger.api.Ledger`."""

    async def info(self) -> LedgerInfo: ...  # noqa: D102
    async def purchase_of(self, key: Key) -> Purchase | None: ...  # noqa: D102
    async def record_customer(self, key: Key, stripe_customer_id: str) -> None: ...  # noqa: D102
    async def record_session(self, key: Key, session_id: str, url: str, expires_at: datetime) -> Purchase: ...  # noqa: D102
    async def compensate(self, key: Key, reason: Reason) -> Purchase | None: ...  # noqa: D102
    async def receive(self, event: PaymentEvent) -> Received: ...  # noqa: D102
    async def record_payment(self, event: PaymentEvent) -> None: ...  # noqa: D102
    async def record_ended(self, key: Key) -> None: ...  # noqa: D102


class Checkout:
    """Makes checkouts, and takes purchases back. Safe for concurrent use within one event loop, and across replicas.

    Every method raises LedgerUnavailableError; those that ask Stripe say so.
    """

    def __init__(self, ledger: PurchaseLedger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._rules: CurrencyRules | None = None

    @cached_property
    def _stripe(self) -> "StripeGateway":
        # Read when it is first needed: the library is a large thing, and many a Sovereign takes no cards.
        from voucher_operator.payments.stripe_gateway import StripeGateway

        return StripeGateway(self._settings)

    @cached_property
    def _reader(self) -> PaymentReader:
        return PaymentReader(self._stripe, self._ledger, self._settings.sovereign)

    async def close(self) -> None:
        """Close the connections to Stripe, if there are any."""
        if "_stripe" in self.__dict__:
            await self._stripe.close()

    @property
    def fault(self) -> str | None:
        """What is missing before a card can pay, in one line; None: `PurchaseRequest.payable`."""
        return self._settings.checkout_fault()

    async def rules(self) -> CurrencyRules:
        """Return step and minimum of what a card pays, for `PurchaseRequest`."""
        if self._rules is None:
            self._rules = rules((await self._ledger.info()).currency, self._settings.stripe_minimum_minor)
        return self._rules

    async def advance(self, purchase: Purchase) -> Purchase:
        """Drive a PENDING purchase until its checkout exists, and return it as it then is; any other as it is.

        Raises PaymentProcessorUnavailableError for what may pass: call again, until the deadline. What may not, and
        what is overdue, is rolled back.
        """
        if purchase.state is not PurchaseState.PENDING:
            return purchase
        if purchase.overdue:
            return await self._roll_back(purchase, Reason.PAYMENT_PROCESSOR_UNAVAILABLE)
        try:
            return await self._check_out(purchase)
        except TerminalError as error:
            log.warning("rolling back: %s", error.message, extra={"key": purchase.key, "reason": error.reason})
            return await self._roll_back(purchase, error.reason)

    async def abandon(self, key: Key) -> Purchase | None:
        """Roll back the purchase of a Redemption that was deleted before the customer had a checkout URL."""
        purchase = await self._ledger.purchase_of(key)
        if purchase is None or purchase.state is not PurchaseState.PENDING:
            return purchase
        return await self._roll_back(purchase, Reason.ABANDONED)

    async def look_up(self, purchase: Purchase) -> Received:
        """Ask Stripe for the session of a purchase and do what a webhook would have done. An open one changes nothing.

        Of a COMPLETED purchase a full refund alone is news; what else became of its payment is recorded. Of one that
        was cancelled or refunded, the subscription is ended: its card would be charged again next month.

        Raises PaymentProcessorUnavailableError, PaymentRejectedError and PaymentProcessorNotConfiguredError.
        """
        if purchase.state in (PurchaseState.CANCELLED, PurchaseState.REFUNDED):
            await self._end(purchase)
            return Received.NO_CHANGE
        if purchase.session_id is None:
            return Received.NO_CHANGE
        session = await self._stripe.retrieve(purchase.session_id)
        raw = _raw(session.body)
        currency = (await self.rules()).currency
        event = stripe_events.looked_up(session.body, raw, currency)
        if event.effect is PaymentEffect.NONE:
            return Received.NO_CHANGE
        # Every webhook may have been lost, or is still to come.
        event = await self._reader.closer(event, currency)
        if purchase.state is PurchaseState.COMPLETED and event.effect is not PaymentEffect.REFUNDED:
            await self._ledger.record_payment(event)
            return Received.NO_CHANGE
        received = await self.receive(event)
        if received is Received.MISMATCH:
            extra = {"resource": "purchase", "key": purchase.key, "reason": received}
            log.warning("a payment does not fit its order: compare the two", extra=extra)
        return received

    async def payment_event(self, event: Mapping[str, Any], raw: bytes) -> PaymentEvent:
        """Read a verified webhook event; for a refund or a dispute, ask Stripe which payment it is of.

        Raises, for these alone, PaymentProcessorUnavailableError, PaymentRejectedError and
        PaymentProcessorNotConfiguredError: answer so that Stripe sends it again.
        """
        return await self._reader.read(event, raw, (await self.rules()).currency)

    async def _check_out(self, purchase: Purchase) -> Purchase:
        if (fault := self.fault) is not None:
            raise PaymentProcessorNotConfiguredError(fault)
        if purchase.due_minor == 0:
            raise PaymentRejectedError("Nothing is due: there is nothing to check out.")
        currency = await self.rules()
        customer_id = purchase.stripe_customer_id or await self._customer(purchase)
        async with failpoint(Step.STRIPE_COUPON):
            coupon_id = await self._stripe.coupon(purchase, currency)
        async with failpoint(Step.STRIPE_SESSION):
            session = await self._stripe.session(purchase, customer_id, coupon_id, currency)
        async with failpoint(Step.NOTE_SESSION):
            noted = await self._ledger.record_session(purchase.key, session.id, session.url, session.expires_at)
        if noted.session_id != session.id:
            # Somebody else rolled it back while we asked.
            await self._expire([session])
        return noted

    async def _customer(self, purchase: Purchase) -> str:
        async with failpoint(Step.STRIPE_CUSTOMER):
            customer_id = await self._stripe.customer(purchase)
        # Before there is a session: by the customer it is found again.
        async with failpoint(Step.NOTE_CUSTOMER):
            await self._ledger.record_customer(purchase.key, customer_id)
        return customer_id

    async def _roll_back(self, purchase: Purchase, reason: Reason) -> Purchase:
        async with failpoint(Step.COMPENSATE):
            taken_back = await self._ledger.compensate(purchase.key, reason)
        if taken_back is None:
            return purchase
        if taken_back.state is PurchaseState.ROLLED_BACK and taken_back.stripe_customer_id is not None:
            try:
                await self._expire(await self._stripe.open_sessions(taken_back))
            except OperatorError as error:
                self._left_open(purchase, error)
        return taken_back

    async def _expire(self, sessions: "list[StripeSession]") -> None:
        for session in sessions:
            try:
                async with failpoint(Step.STRIPE_EXPIRE):
                    await self._stripe.expire(session.id)
            except OperatorError as error:
                log.warning("a checkout stays open until it expires: %s", error.message, extra={"reason": error.reason})

    async def _end(self, purchase: Purchase) -> None:
        for subscription in await self._stripe.subscriptions(purchase):
            async with failpoint(Step.STRIPE_UNSUBSCRIBE):
                await self._stripe.unsubscribe(subscription)
        async with failpoint(Step.NOTE_ENDED):
            await self._ledger.record_ended(purchase.key)

    def _left_open(self, purchase: Purchase, error: OperatorError) -> None:
        extra = {"key": purchase.key, "reason": error.reason}
        log.warning("a checkout may stay open until it expires: %s", error.message, extra=extra)

    async def receive(self, event: PaymentEvent) -> Received:
        """Have the ledger keep an event and do what follows, as `Ledger.receive`; a webhook's too."""
        async with failpoint(Step.RECEIVE):
            received = await self._ledger.receive(event)
        if received is Received.MISMATCH:
            telemetry.MISMATCHES.inc()
        if event.dispute is not None and event.dispute.opened and received is Received.NO_CHANGE:
            telemetry.DISPUTES.inc()
            extra = {"resource": "webhook", "key": event.event_id}
            log.warning("a payment of an order is disputed: answer it at Stripe", extra=extra)
        return received


def _raw(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), default=str).encode()

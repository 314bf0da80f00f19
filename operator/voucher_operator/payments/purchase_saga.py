"""The saga of a purchase between the ledger and Stripe, and its compensation.

`advance` creates the checkout of a PENDING purchase: customer, coupon and session at Stripe, then a record in the
ledger. The process may die between any two steps: the next one repeats them all, and Stripe and the ledger return the
same results. What cannot succeed is compensated, first in the ledger and then, best effort, at Stripe: a checkout that
is paid all the same is a mismatch, which the ledger stores for a person to resolve. `look_up` finds what no webhook
reported, and cancels subscriptions at Stripe whose order has ended in the ledger.
See also: `stripe_gateway`; `ledger.api`; `services.order` calls `advance` and `cancel_pending`;
`controllers.purchase.periodic` calls `look_up`.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

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

_UNPAID: Final = (PurchaseState.CANCELLED, PurchaseState.REFUNDED, PurchaseState.CHARGED_BACK)


class PurchaseLedger(Protocol):
    """The part of `ledger.api.Ledger` that the saga uses."""

    async def info(self) -> LedgerInfo: ...  # noqa: D102
    async def purchase_of(self, key: Key) -> Purchase | None: ...  # noqa: D102
    async def record_customer(self, key: Key, stripe_customer_id: str) -> None: ...  # noqa: D102
    async def record_session(self, key: Key, session_id: str, url: str, expires_at: datetime) -> Purchase: ...  # noqa: D102
    async def compensate(self, key: Key, reason: Reason) -> Purchase | None: ...  # noqa: D102
    async def receive(self, event: PaymentEvent) -> Received: ...  # noqa: D102
    async def record_payment(self, event: PaymentEvent) -> None: ...  # noqa: D102
    async def record_ended(self, key: Key) -> None: ...  # noqa: D102


class Checkout:
    """Creates checkouts, and rolls purchases back. Safe for concurrent use within one event loop, and across replicas.

    Every method raises LedgerUnavailableError; methods that call Stripe list its errors.
    """

    def __init__(self, ledger: PurchaseLedger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._rules: CurrencyRules | None = None

    @cached_property
    def _stripe(self) -> "StripeGateway":
        # Imported when it is first needed: the library is large, and not every Sovereign accepts cards.
        from voucher_operator.payments.stripe_gateway import StripeGateway

        return StripeGateway(self._settings)

    @cached_property
    def _reader(self) -> PaymentReader:
        return PaymentReader(self._stripe, self._ledger, self._settings.sovereign)

    async def close(self) -> None:
        """Close the connections to Stripe, if any."""
        if "_stripe" in self.__dict__:
            await self._stripe.close()

    @property
    def fault(self) -> str | None:
        """The settings that are missing before a card can be charged, in one line; None when it can be."""
        return self._settings.checkout_fault()

    async def rules(self) -> CurrencyRules:
        """Return step and minimum of card payments, for `PurchaseRequest`."""
        if self._rules is None:
            self._rules = rules((await self._ledger.info()).currency, self._settings.stripe_minimum_minor)
        return self._rules

    async def advance(self, purchase: Purchase) -> Purchase:
        """Create the checkout of a PENDING purchase, and return the purchase; return any other unchanged.

        Raises PaymentProcessorUnavailableError for a transient failure: call again, until the deadline. After a
        permanent failure, and after the deadline, the purchase is rolled back.
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

    async def cancel_pending(self, key: Key) -> Purchase | None:
        """Roll back a pending purchase: its Redemption was deleted before the customer had a checkout URL."""
        purchase = await self._ledger.purchase_of(key)
        if purchase is None or purchase.state is not PurchaseState.PENDING:
            return purchase
        return await self._roll_back(purchase, Reason.ABANDONED)

    async def look_up(self, purchase: Purchase) -> Received:
        """Read the session of a purchase from Stripe and do what a webhook would do. An open session changes nothing.

        For a COMPLETED purchase only a full refund has an effect; other changes of its payment are recorded. The
        subscription of a purchase that has ended without its payment is cancelled: its card would be charged again
        next month. It is not resumed when the payment counts again.

        Raises PaymentProcessorUnavailableError, PaymentRejectedError and PaymentProcessorNotConfiguredError.
        """
        if purchase.state in _UNPAID or purchase.reason is Reason.REINSTATED:
            await self._unsubscribe(purchase)
        if purchase.state in _UNPAID or purchase.session_id is None:
            return Received.NO_CHANGE
        session = await self._stripe.retrieve(purchase.session_id)
        raw = _raw(session.body)
        currency = (await self.rules()).currency
        event = stripe_events.looked_up(session.body, raw, currency)
        if event.effect is PaymentEffect.NONE:
            return Received.NO_CHANGE
        # Every webhook may have been lost, or may still arrive.
        event = await self._reader.with_details(event, currency)
        if purchase.state is PurchaseState.COMPLETED and event.effect is not PaymentEffect.REFUNDED:
            await self._ledger.record_payment(event)
            return Received.NO_CHANGE
        received = await self.receive(event)
        if received is Received.MISMATCH:
            extra = {"resource": "purchase", "key": purchase.key, "reason": received}
            log.warning("a payment does not match its order: compare them", extra=extra)
        return received

    async def payment_event(self, event: Mapping[str, Any], raw: bytes) -> PaymentEvent:
        """Read a verified webhook event; for a refund or a dispute, look up its payment at Stripe.

        Raises, for these only, PaymentProcessorUnavailableError, PaymentRejectedError and
        PaymentProcessorNotConfiguredError: respond so that Stripe sends the event again.
        """
        foreign = stripe_events.foreign_event(event, raw, live=self._settings.stripe_live())
        return foreign or await self._reader.read(event, raw, (await self.rules()).currency)

    async def _check_out(self, purchase: Purchase) -> Purchase:
        if (fault := self.fault) is not None:
            raise PaymentProcessorNotConfiguredError(fault)
        if purchase.due_minor == 0:
            raise PaymentRejectedError("Nothing is due: no checkout is needed.")
        currency = await self.rules()
        customer_id = purchase.stripe_customer_id or await self._customer(purchase)
        async with failpoint(Step.STRIPE_COUPON):
            coupon_id = await self._stripe.coupon(purchase, currency)
        offset = (await self._ledger.info()).clock_offset
        async with failpoint(Step.STRIPE_SESSION):
            session = await self._stripe.session(purchase, customer_id, coupon_id, currency, offset)
        async with failpoint(Step.RECORD_SESSION):
            noted = await self._ledger.record_session(purchase.key, session.id, session.url, session.expires_at)
        if not session.alone:
            await self._expire_others(noted)
        elif noted.session_id != session.id:
            # It was rolled back by another process meanwhile.
            await self._expire([session])
        return noted

    async def _customer(self, purchase: Purchase) -> str:
        async with failpoint(Step.STRIPE_CUSTOMER):
            customer_id = await self._stripe.customer(purchase)
        # Before the session exists: it can be found again by its customer.
        async with failpoint(Step.RECORD_CUSTOMER):
            await self._ledger.record_customer(purchase.key, customer_id)
        return customer_id

    async def _roll_back(self, purchase: Purchase, reason: Reason) -> Purchase:
        async with failpoint(Step.COMPENSATE):
            rolled_back = await self._ledger.compensate(purchase.key, reason)
        if rolled_back is None:
            return purchase
        if rolled_back.state is PurchaseState.ROLLED_BACK and rolled_back.stripe_customer_id is not None:
            await self._expire_others(rolled_back)
        return rolled_back

    async def _expire_others(self, purchase: Purchase) -> None:
        """Expire the sessions of a purchase but the recorded one: no order has two sessions that can be paid.

        Which one is recorded is decided: of two processes, neither expires the other's. The customer has no URL of
        those that stay open after an error.
        """
        try:
            opened = await self._stripe.open_sessions(purchase)
        except OperatorError as error:
            extra = {"key": purchase.key, "reason": error.reason}
            log.warning("a checkout may stay open until it expires: %s", error.message, extra=extra)
        else:
            await self._expire([one for one in opened if one.id != purchase.session_id])

    async def _expire(self, sessions: "list[StripeSession]") -> None:
        for session in sessions:
            try:
                async with failpoint(Step.STRIPE_EXPIRE):
                    await self._stripe.expire(session.id)
            except OperatorError as error:
                log.warning("a checkout stays open until it expires: %s", error.message, extra={"reason": error.reason})

    async def _unsubscribe(self, purchase: Purchase) -> None:
        for subscription in await self._stripe.subscriptions(purchase):
            async with failpoint(Step.STRIPE_UNSUBSCRIBE):
                await self._stripe.unsubscribe(subscription)
        async with failpoint(Step.RECORD_ENDED):
            await self._ledger.record_ended(purchase.key)

    async def receive(self, event: PaymentEvent) -> Received:
        """Store an event in the ledger with its effect, as `Ledger.receive`; also for webhooks."""
        async with failpoint(Step.RECEIVE):
            received = await self._ledger.receive(event)
        if received is Received.MISMATCH:
            telemetry.MISMATCHES.inc()
        recorded = received in (Received.NO_CHANGE, Received.APPLIED)
        if event.dispute is not None and event.dispute.opened and recorded:
            telemetry.DISPUTES.inc()
            extra = {"resource": "webhook", "key": event.event_id}
            log.warning("a payment of an order is disputed: respond at Stripe", extra=extra)
        return received


def _raw(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), default=str).encode()

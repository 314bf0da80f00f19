"""Failpoints: the steps of a purchase with a durable effect, before or after which a test can kill the process.

Each step that the ledger or another system stores runs inside `async with failpoint(Step.X)`. A test kills the process
before or after a step by the environment variable `VOUCHER_OPERATOR_CRASH`; without it a failpoint does nothing. See
also: `payments.purchase_saga`, `services.order`, `controllers`, `messaging.outbox_relay` have the steps.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

VARIABLE: Final = "VOUCHER_OPERATOR_CRASH"
"""`before:<step>` or `after:<step>`."""


class Step(StrEnum):
    """One step; in the order of a purchase."""

    PLACE = "place"
    """Ledger: redemption, order, hold or spend, one transaction."""
    STRIPE_CUSTOMER = "stripe_customer"
    RECORD_CUSTOMER = "record_customer"
    """Ledger: records the customer's id at Stripe."""
    STRIPE_COUPON = "stripe_coupon"
    STRIPE_SESSION = "stripe_session"
    RECORD_SESSION = "record_session"
    """Ledger: records the checkout, which the customer can pay from now on."""
    COMPENSATE = "compensate"
    """Ledger: hold released, redemption undone, order failed, one transaction."""
    STRIPE_EXPIRE = "stripe_expire"
    """Stripe: the checkout is expired, so that it can no longer be paid."""
    RECEIVE = "receive"
    """Ledger: stores a payment event with its effect, one transaction."""
    STRIPE_UNSUBSCRIBE = "stripe_unsubscribe"
    """Stripe: the subscription of an order that was refunded, or whose payment failed, is cancelled."""
    RECORD_ENDED = "record_ended"
    """Ledger: records that the subscription is cancelled."""
    PUBLISH = "publish"
    """NATS: an event of the outbox is published."""
    MARK_PUBLISHED = "mark_published"
    """Ledger: the events are marked as published."""
    ORGANIZATION = "organization"
    """API server: the Organization is created."""
    STATUS = "status"
    """API server: the Redemption's status is written."""


@asynccontextmanager
async def failpoint(name: Step) -> AsyncIterator[None]:
    """Run one step; kill the process by SIGKILL before or after it, if the environment says so. Errors propagate."""
    _kill_if_set("before", name)
    yield
    _kill_if_set("after", name)


def _kill_if_set(moment: str, name: Step) -> None:
    if os.environ.get(VARIABLE) == f"{moment}:{name}":
        os.kill(os.getpid(), signal.SIGKILL)

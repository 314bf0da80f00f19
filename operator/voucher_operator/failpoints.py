"""Every effect of buying that outlives the process, by name; between two of them the process may die.

Each step that another system or the ledger remembers runs inside `async with failpoint(Step.X)`. A test orders the
process to kill itself before or after one of them, by the environment variable `VOUCHER_OPERATOR_CRASH`; in production
it is absent, and nothing happens here. See also: `saga`, the controllers, the relay and the webhook name their steps.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

VARIABLE: Final = "VOUCHER_OPERATOR_CRASH"
"""`before:<effect>` or `after:<effect>`."""


class Step(StrEnum):
    """One effect; in the order in which a purchase meets them."""

    PLACE = "place"
    """The ledger: redemption, order, hold or spend, one transaction."""
    STRIPE_CUSTOMER = "stripe_customer"
    NOTE_CUSTOMER = "note_customer"
    """The ledger remembers the customer's id at Stripe."""
    STRIPE_COUPON = "stripe_coupon"
    STRIPE_SESSION = "stripe_session"
    NOTE_SESSION = "note_session"
    """The ledger remembers the checkout, which is now the customer's to pay."""
    COMPENSATE = "compensate"
    """The ledger: hold released, redemption undone, order failed, one transaction."""
    STRIPE_EXPIRE = "stripe_expire"
    """A checkout that nobody may pay any more is closed at Stripe."""
    RECEIVE = "receive"
    """The ledger: what Stripe told us and what follows from it, one transaction."""
    STRIPE_UNSUBSCRIBE = "stripe_unsubscribe"
    """The subscription of an order that was refunded, or whose payment failed, is ended at Stripe."""
    NOTE_ENDED = "note_ended"
    """The ledger remembers that there is nothing more to end."""
    PUBLISH = "publish"
    """NATS has the events of a batch."""
    MARK_PUBLISHED = "mark_published"
    """The ledger remembers that they are published."""
    ORGANIZATION = "organization"
    """The API server has the Organization."""
    STATUS = "status"
    """The API server has the Redemption's status."""


@asynccontextmanager
async def failpoint(name: Step) -> AsyncIterator[None]:
    """Do one effect; where the environment orders it, the process ends by SIGKILL before or after. An error passes."""
    _perhaps_die("before", name)
    yield
    _perhaps_die("after", name)


def _perhaps_die(moment: str, name: Step) -> None:
    if os.environ.get(VARIABLE) == f"{moment}:{name}":
        os.kill(os.getpid(), signal.SIGKILL)

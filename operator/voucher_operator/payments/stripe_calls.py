"""One call of Stripe: with the current key, within its time limit, and with an idempotency key that is not used up.

Stripe stores the first response to an idempotency key for a day, also a 500, and refuses the key with another content:
such a key is used up. Then what it may have made is looked for, and only if there is nothing the next key of the step
is used. All processes use the keys in the same order, so that two of them do not make two objects. See also:
`stripe_gateway` has the calls; `stripe_errors` translates the errors.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import stripe

from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.payments import stripe_requests
from voucher_operator.payments.stripe_errors import is_stored, no_key, translate, unreachable, unreadable
from voucher_operator.resources.errors import (
    PaymentProcessorNotConfiguredError,
    PaymentProcessorUnavailableError,
    PaymentRejectedError,
)
from voucher_operator.settings import Settings

if TYPE_CHECKING:
    from stripe import RequestOptions

log = logging.getLogger(__name__)

API_VERSION: Final = "2026-08-26.dahlia"
"""Version of the API, not of the library: an upgrade of the library does not change requests and responses."""
_EXISTS: Final = "resource_already_exists"
_KEYS: Final = 20
"""Idempotency keys of one step: after as many stored errors Stripe does not recover before the deadline."""
_A_KEY: Final = re.compile(r"[!-~]+")

Make = Callable[[stripe.StripeClient, "RequestOptions"], Awaitable[object]]
"""Requests an object, with the options that have the idempotency key."""
Find = Callable[[], Awaitable[Mapping[str, Any] | None]]
"""Looks for an object that a used up key has made all the same."""


class StripeCalls:
    """Calls of Stripe. Safe for concurrent use within one event loop; key and addresses come from the settings.

    Both methods raise PaymentProcessorUnavailableError for a transient failure, PaymentRejectedError for a permanent
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

    async def once(self, purchase: Purchase, step: str, make: Make, find: Find) -> tuple[Mapping[str, Any], int]:
        """Make an object once; return it, and the number of keys that are used up.

        Raises ExistsError when an object of this id exists already.
        """
        for attempt in range(_KEYS):
            try:
                async with self.call() as client:
                    return body_of(await make(client, stripe_requests.once(purchase, step, attempt))), attempt
            except (_StoredError, _OtherContentError) as error:
                extra = {"key": purchase.key, "reason": error.reason}
                log.info("step %s: Stripe has an error stored for key %d", step, attempt, extra=extra)
                if (found := await find()) is not None:
                    return found, attempt + 1
        raise unreadable()

    @asynccontextmanager
    async def call(self, tries: int = 1) -> AsyncIterator[stripe.StripeClient]:
        """Yield a client for one call, which may be tried so often within the library."""
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
            if is_stored(error):
                raise _StoredError(*ours.args) from None
            if error.code == _EXISTS:
                raise ExistsError(*ours.args) from None
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


class _StoredError(PaymentProcessorUnavailableError):
    """Stripe has stored an error of its own for this idempotency key."""


class ExistsError(PaymentRejectedError):
    """An object with this id exists already."""


def body_of(answer: object) -> Mapping[str, Any]:
    """Return the content of a response; a proxy may respond instead of Stripe."""
    if isinstance(answer, stripe.StripeObject):
        return answer.to_dict()
    raise unreadable()


def items_of(answer: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list."""
    items = body_of(answer).get("data")
    if isinstance(items, list) and all(isinstance(item, Mapping) for item in items):
        return items
    raise unreadable()


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a text that every object of this kind has."""
    value = body.get(name)
    if isinstance(value, str) and value:
        return value
    raise unreadable()

"""Translates Stripe's errors: transient ones, and those that a person must resolve.

Stripe's own messages contain ids of requests and customers and differ between attempts, so only its error code, from a
published list, is used. See also: `stripe_gateway` calls Stripe.
"""

import re
from typing import Final

import stripe

from voucher_operator.resources.errors import (
    OperatorError,
    PaymentProcessorUnavailableError,
    PaymentRejectedError,
)

_KEY: Final = "Stripe rejects the API key: put a valid secret key into VOUCHER_OPERATOR_STRIPE_API_KEY_FILE."
_RIGHTS: Final = (
    "The Stripe API key lacks a permission: it must write customers, coupons, checkout sessions and subscriptions, and "
    "read invoices, payment intents and charges."
)
_UNREACHABLE: Final = "Stripe cannot be reached or did not respond in time: this is retried."
_BUSY: Final = "Stripe is busy: this is retried."
_FAILED: Final = "Stripe failed: this is retried."
_SERVER_ERROR: Final = 500
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def unreachable() -> PaymentProcessorUnavailableError:
    """Return the error for a missing response."""
    return PaymentProcessorUnavailableError(_UNREACHABLE)


def no_key() -> PaymentRejectedError:
    """Return the error for a value that cannot be a key: the library would report it as a failed connection."""
    return PaymentRejectedError(_KEY)


def unreadable() -> PaymentProcessorUnavailableError:
    """Return the error for an incomplete response, of Stripe or of a proxy."""
    return PaymentProcessorUnavailableError(_FAILED)


def is_stored(error: stripe.StripeError) -> bool:
    """Whether Stripe repeats an error of its own that it has stored for the idempotency key: a retry gets it again."""
    replayed = {name.lower(): value for name, value in (error.headers or {}).items()}.get("idempotent-replayed")
    return replayed == "true" and (error.http_status or 0) >= _SERVER_ERROR


def translate(error: stripe.StripeError) -> OperatorError:
    """Translate an error of Stripe's library: PaymentRejectedError when a retry cannot succeed."""
    match error:
        case stripe.AuthenticationError():
            return PaymentRejectedError(_KEY)
        case stripe.PermissionError():
            return PaymentRejectedError(_RIGHTS)
        case stripe.CardError() | stripe.InvalidRequestError() | stripe.IdempotencyError():
            return PaymentRejectedError(f"Stripe refuses the checkout{_code(error)}: check Stripe's request log.")
        case stripe.RateLimitError():
            return PaymentProcessorUnavailableError(_BUSY)
        case stripe.APIConnectionError():
            return unreachable()
        case _:
            # 5xx, an idempotency key of a running request (409), and responses of a proxy.
            return PaymentProcessorUnavailableError(_FAILED)


def _code(error: stripe.StripeError) -> str:
    return f" ({error.code})" if error.code and _CODE.fullmatch(error.code) else ""

"""Stripe's errors in our words: what may pass, and what a person must change.

Stripe's own messages name requests and customers and differ from one try to the next, so only its error code, a word of
its published list, is passed on. See also: `stripe_gateway` asks.
"""

import re
from typing import Final

import stripe

from voucher_operator.resources.errors import (
    OperatorError,
    PaymentProcessorUnavailableError,
    PaymentRejectedError,
)

_KEY: Final = "Stripe refuses our key: put a valid secret key into VOUCHER_OPERATOR_STRIPE_API_KEY_FILE."
_RIGHTS: Final = (
    "Stripe's key may not do this: it needs to write customers, coupons, checkout sessions and subscriptions, and to "
    "read invoices, payment intents and charges."
)
_UNREACHABLE: Final = "Stripe cannot be reached or did not answer in time: this is tried again."
_BUSY: Final = "Stripe is busy: this is tried again."
_FAILED: Final = "Stripe failed: this is tried again."
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def unreachable() -> PaymentProcessorUnavailableError:
    """Stripe keeps silent."""
    return PaymentProcessorUnavailableError(_UNREACHABLE)


def no_key() -> PaymentRejectedError:
    """Ours cannot be a key: no header takes it, and the library would call that a connection that fails."""
    return PaymentRejectedError(_KEY)


def unreadable() -> PaymentProcessorUnavailableError:
    """Stripe's answer, or that of something between us and Stripe, lacks what it must have."""
    return PaymentProcessorUnavailableError(_FAILED)


def translate(error: stripe.StripeError) -> OperatorError:
    """Our error for one of Stripe's: PaymentRejectedError for what no second try mends."""
    match error:
        case stripe.AuthenticationError():
            return PaymentRejectedError(_KEY)
        case stripe.PermissionError():
            return PaymentRejectedError(_RIGHTS)
        case stripe.CardError() | stripe.InvalidRequestError() | stripe.IdempotencyError():
            return PaymentRejectedError(f"Stripe refuses the checkout{_named(error)}: look into Stripe's request log.")
        case stripe.RateLimitError():
            return PaymentProcessorUnavailableError(_BUSY)
        case stripe.APIConnectionError():
            return unreachable()
        case _:
            # 5xx, a key that is in use by a request under way (409), and what only something in between answers.
            return PaymentProcessorUnavailableError(_FAILED)


def _named(error: stripe.StripeError) -> str:
    return f" ({error.code})" if error.code and _CODE.fullmatch(error.code) else ""

"""The words of our requests to Stripe, and how its answers about invoices are read: pure functions, no I/O.

The credit is a one-time coupon on the first invoice, so the card pays total - credit now and the full price in later
months. `allow_promotion_codes` is never set: no other promotion can be stacked on the credit. Neighbour:
`stripe_gateway` sends them; stripe-mock holds them against Stripe's published description in the tests.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from voucher_operator.checkout.currency import CurrencyRules
from voucher_operator.ledger.purchase_types import Line, PaymentEffect, Purchase
from voucher_operator.settings import Settings

if TYPE_CHECKING:
    from stripe import RequestOptions
    from stripe.params import CouponCreateParams, CustomerCreateParams
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsLineItem

SESSION_SECONDS: Final = 23 * 3600
"""From the order to the end of its checkout. Stripe takes 30 minutes to 24 hours from the request; the latest request
comes at the purchase's deadline, and its clock need not be ours."""
_COUPON_NAME: Final = "Voucher credit"
_FAILED: Final = ("requires_payment_method", "canceled")
"""Of a payment intent that was tried: nothing more comes of itself."""
_ENDED: Final = ("canceled", "incomplete_expired")
_LONGEST: Final = 500
"""Characters of a metadata value, the longest that Stripe takes."""


def once(purchase: Purchase, step: str) -> "RequestOptions":
    """Derive a step's idempotency key: a hash, for what it is made of is nobody's business."""
    text = "\0".join((purchase.key, purchase.order_id, step))
    return {"idempotency_key": f"voucher-{hashlib.sha256(text.encode()).hexdigest()}"}


def customer(purchase: Purchase, sovereign: str) -> "CustomerCreateParams":
    """Say who buys."""
    return {"email": purchase.email, "metadata": metadata(purchase, sovereign)}


def coupon(purchase: Purchase, sovereign: str, rules: CurrencyRules) -> "CouponCreateParams":
    """Say what the credit takes off the first invoice."""
    return {
        "id": f"credit-{purchase.order_id}",
        "name": _COUPON_NAME,
        "amount_off": rules.to_stripe(purchase.held_minor),
        "currency": rules.currency.lower(),
        "duration": "once",
        "max_redemptions": 1,
        "metadata": metadata(purchase, sovereign),
    }


def session(
    purchase: Purchase, customer_id: str, coupon_id: str | None, settings: Settings, rules: CurrencyRules
) -> "SessionCreateParams":
    """Say what is bought, and what is taken off."""
    labels = metadata(purchase, settings.sovereign)
    params: SessionCreateParams = {
        "mode": "subscription",
        "customer": customer_id,
        "client_reference_id": purchase.order_id,
        "line_items": [_line_item(line, rules) for line in purchase.lines if line.price_minor > 0],
        "success_url": settings.checkout_success_url,
        "expires_at": int(purchase.placed_at.timestamp()) + SESSION_SECONDS,
        "metadata": labels,
        "subscription_data": {"metadata": labels},
    }
    if coupon_id is not None:
        params["discounts"] = [{"coupon": coupon_id}]
    if settings.checkout_cancel_url:
        params["cancel_url"] = settings.checkout_cancel_url
    return params


def metadata(purchase: Purchase, sovereign: str) -> dict[str, str]:
    """Label a thing at Stripe: whose revenue it is, and of which order."""
    labels = {"order_id": purchase.order_id, "tenant_id": purchase.tenant_id, "sovereign": sovereign}
    return {name: value[:_LONGEST] for name, value in labels.items()}


def first_order(payment: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """Read order and sovereign off an invoice payment (invoice shown in full) of a subscription's first invoice."""
    invoice = payment.get("invoice")
    if not isinstance(invoice, Mapping) or invoice.get("billing_reason") != "subscription_create":
        return None
    labels = _mapping(_mapping(_mapping(invoice.get("parent")).get("subscription_details")).get("metadata"))
    order, sovereign = labels.get("order_id"), labels.get("sovereign")
    return (order, sovereign) if isinstance(order, str) and order else None


def became(payments: Sequence[Mapping[str, Any]]) -> PaymentEffect:
    """Say what became of an invoice, by its payments (with their charges): REFUNDED in full, FAILED or NONE."""
    intents = [_mapping(_mapping(one.get("payment")).get("payment_intent")) for one in payments]
    if any(_mapping(one.get("latest_charge")).get("refunded") is True for one in intents):
        return PaymentEffect.REFUNDED
    if intents and all(one.get("status") in _FAILED for one in intents):
        return PaymentEffect.FAILED
    return PaymentEffect.NONE


def goes_on(subscription: Mapping[str, Any], purchase: Purchase) -> bool:
    """Whether a subscription is a purchase's and has not ended."""
    labels = _mapping(subscription.get("metadata"))
    return labels.get("order_id") == purchase.order_id and subscription.get("status") not in _ENDED


def reference(value: object) -> str | None:
    """Return the id of another object, which Stripe shows as such or in full."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) and found else None


def _line_item(line: Line, rules: CurrencyRules) -> "SessionCreateParamsLineItem":
    if line.stripe_price_id is not None:
        return {"price": line.stripe_price_id, "quantity": 1}
    return {
        "quantity": 1,
        "price_data": {
            "currency": rules.currency.lower(),
            "unit_amount": rules.to_stripe(line.price_minor),
            "recurring": {"interval": "month"},
            "product_data": {"name": line.name or line.slug or line.id, "metadata": {line.kind: line.id}},
        },
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

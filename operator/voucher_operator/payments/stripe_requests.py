"""The words of our requests to Stripe, and how its answers about invoices are read: pure functions, no I/O.

The credit is a one-time coupon on the first invoice, so the card pays total - credit now and the full price in later
months. `allow_promotion_codes` is never set: no other promotion can be stacked on the credit. See also:
`stripe_gateway` sends them; stripe-mock holds them against Stripe's published description in the tests.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from voucher_operator.ledger.purchase.types import Line, Purchase
from voucher_operator.payments.currency import CurrencyRules
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


@dataclass(frozen=True, slots=True)
class FirstPayment:
    """The order whose first month a payment was for, whose Sovereign's it is, and its invoice and subscription."""

    order_id: str
    sovereign: str | None
    invoice_id: str | None
    subscription_id: str | None


@dataclass(frozen=True, slots=True)
class InvoiceMoney:
    """What became of the money of an invoice: amounts in Stripe's unit of `currency` (lower-case).

    `refunded`: all of it was given back. `failed`: it was tried, and nothing more comes of itself. Without
    `payment_intent` nothing was paid until now.
    """

    payment_intent: str | None = None
    charge_id: str | None = None
    currency: str = ""
    amount: int = 0
    amount_refunded: int = 0
    refunded: bool = False
    failed: bool = False


def first_payment(payment: Mapping[str, Any]) -> FirstPayment | None:
    """Read an invoice payment (invoice shown in full) of a subscription's first invoice; None for any other."""
    invoice = payment.get("invoice")
    if not isinstance(invoice, Mapping) or invoice.get("billing_reason") != "subscription_create":
        return None
    details = _mapping(_mapping(invoice.get("parent")).get("subscription_details"))
    labels = _mapping(details.get("metadata"))
    order, sovereign = labels.get("order_id"), labels.get("sovereign")
    if not isinstance(order, str) or not order:
        return None
    return FirstPayment(order, sovereign, reference(invoice.get("id")), reference(details.get("subscription")))


def began(subscription_id: str, sessions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the checkout session among these that began a subscription."""
    return next((one for one in sessions if reference(one.get("subscription")) == subscription_id), None)


def invoice_money(payments: Sequence[Mapping[str, Any]]) -> InvoiceMoney:
    """Add up what became of an invoice, by its payments (with their charges)."""
    intents = [_mapping(_mapping(one.get("payment")).get("payment_intent")) for one in payments]
    paid = [(one, charge) for one in intents if (charge := _charged(one))]
    if not paid:
        return InvoiceMoney(failed=bool(intents) and all(one.get("status") in _FAILED for one in intents))
    charges = [charge for _, charge in paid]
    return InvoiceMoney(
        payment_intent=reference(paid[0][0].get("id")),
        charge_id=reference(charges[0].get("id")),
        currency=str(charges[0].get("currency") or ""),
        amount=sum(_number(one, "amount") for one in charges),
        amount_refunded=sum(_number(one, "amount_refunded") for one in charges),
        refunded=all(one.get("refunded") is True for one in charges),
    )


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


def _charged(intent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the charge of a payment intent that succeeded; nothing of any other."""
    return _mapping(intent.get("latest_charge")) if intent.get("status") == "succeeded" else {}


def _number(thing: Mapping[str, Any], name: str) -> int:
    value = thing.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

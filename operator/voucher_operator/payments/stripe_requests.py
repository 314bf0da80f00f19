"""Builds requests to Stripe, and reads its responses about invoices: pure functions, no I/O.

The credit is a one-time coupon on the first invoice, so the card pays total - credit now and the full price in later
months. `allow_promotion_codes` is never set: no other promotion can be combined with the credit. See also:
`stripe_gateway` sends them; in the tests stripe-mock checks them against Stripe's OpenAPI document.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from voucher_operator.ledger.clock import TOLERATED
from voucher_operator.ledger.purchase.types import Line, Purchase
from voucher_operator.payments.currency import CurrencyRules
from voucher_operator.settings import Settings

if TYPE_CHECKING:
    from stripe import RequestOptions
    from stripe.params import CouponCreateParams, CustomerCreateParams
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsLineItem

SESSION_SECONDS: Final = 23 * 3600
"""Lifetime of a checkout, from the order. Stripe accepts 30 minutes to 24 hours from the request; the latest request
is sent at the purchase's deadline, and Stripe's clock may differ from ours."""
_OFFSET_STEP: Final = timedelta(minutes=15)
"""A difference of the clocks counts in steps, so that a repeated request has the same content."""
_LARGEST_OFFSET: Final = timedelta(hours=6)
"""If PostgreSQL's clock is behind by more, it is not believed: a checkout would end too early."""
_COUPON_NAME: Final = "Voucher credit"
_FAILED: Final = ("requires_payment_method", "canceled")
"""States of a payment intent that has failed, and is not retried by Stripe."""
_ENDED: Final = ("canceled", "incomplete_expired")
_LONGEST: Final = 500
"""Maximum length of a metadata value at Stripe."""
_LONGEST_NAME: Final = 250
"""Maximum length of a product's name at Stripe."""


def once(purchase: Purchase, step: str, attempt: int = 0) -> "RequestOptions":
    """Derive a step's idempotency key: a hash, so that it does not disclose the purchase.

    Every process uses the keys of a step in the same order: 0, 1, 2.
    """
    text = "\0".join((purchase.key, purchase.order_id, step, *([str(attempt)] if attempt else [])))
    return {"idempotency_key": f"voucher-{hashlib.sha256(text.encode()).hexdigest()}"}


def customer(purchase: Purchase, sovereign: str) -> "CustomerCreateParams":
    """Build the customer."""
    return {"email": purchase.email, "metadata": metadata(purchase, sovereign)}


def coupon(purchase: Purchase, sovereign: str, rules: CurrencyRules) -> "CouponCreateParams":
    """Build the coupon: the credit that is deducted from the first invoice."""
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
    purchase: Purchase,
    customer_id: str,
    coupon_id: str | None,
    settings: Settings,
    rules: CurrencyRules,
    clock_offset: timedelta = timedelta(),
) -> "SessionCreateParams":
    """Build the checkout session: the lines, and the coupon. `clock_offset` as in `expires_at`."""
    labels = metadata(purchase, settings.sovereign)
    params: SessionCreateParams = {
        "mode": "subscription",
        "customer": customer_id,
        "client_reference_id": purchase.order_id,
        "line_items": [_line_item(line, rules) for line in purchase.lines if line.price_minor > 0],
        "success_url": settings.checkout_success_url,
        "expires_at": expires_at(purchase.placed_at, clock_offset),
        "metadata": labels,
        "subscription_data": {"metadata": labels},
    }
    if coupon_id is not None:
        params["discounts"] = [{"coupon": coupon_id}]
    if settings.checkout_cancel_url:
        params["cancel_url"] = settings.checkout_cancel_url
    return params


def expires_at(placed_at: datetime, clock_offset: timedelta) -> int:
    """Return when the checkout of an order ends, in seconds of Unix time.

    `placed_at` is PostgreSQL's time, `clock_offset` PostgreSQL's clock minus this machine's. Where the two differ, one
    of them is wrong, and Stripe refuses an end that is over 24 hours from the request: the earlier one of the two
    times of the order is taken, with which the end is right or early by the difference. Where PostgreSQL's is earlier
    by hours, this machine's is taken.
    """
    offset = _OFFSET_STEP * round(clock_offset / _OFFSET_STEP) if abs(clock_offset) > TOLERATED else timedelta()
    by_machine = placed_at - offset
    began = by_machine if -offset > _LARGEST_OFFSET else min(placed_at, by_machine)
    return int(began.timestamp()) + SESSION_SECONDS


def metadata(purchase: Purchase, sovereign: str) -> dict[str, str]:
    """Build the metadata of an object at Stripe: order, tenant and Sovereign."""
    labels = {"order_id": purchase.order_id, "tenant_id": purchase.tenant_id, "sovereign": sovereign}
    return {name: value[:_LONGEST] for name, value in labels.items()}


@dataclass(frozen=True, slots=True)
class FirstPayment:
    """The order whose first month a payment is for, with its Sovereign, invoice and subscription."""

    order_id: str
    sovereign: str | None
    invoice_id: str | None
    subscription_id: str | None


@dataclass(frozen=True, slots=True)
class InvoiceMoney:
    """Payments and refunds of an invoice: amounts in Stripe's unit of `currency` (lower-case).

    `refunded`: refunded in full. `failed`: the payment has failed and is not retried. Without `payment_intent` nothing
    is paid yet.
    """

    payment_intent: str | None = None
    charge_id: str | None = None
    currency: str = ""
    amount: int = 0
    amount_refunded: int = 0
    refunded: bool = False
    failed: bool = False


def first_payment(payment: Mapping[str, Any]) -> FirstPayment | None:
    """Read an invoice payment (with its invoice expanded) of a subscription's first invoice; None for any other."""
    invoice = payment.get("invoice")
    if not isinstance(invoice, Mapping) or invoice.get("billing_reason") != "subscription_create":
        return None
    details = _mapping(_mapping(invoice.get("parent")).get("subscription_details"))
    labels = _mapping(details.get("metadata"))
    order, sovereign = labels.get("order_id"), labels.get("sovereign")
    if not isinstance(order, str) or not order:
        return None
    return FirstPayment(order, sovereign, reference(invoice.get("id")), reference(details.get("subscription")))


def creating_session(subscription_id: str, sessions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the checkout session among these that created a subscription."""
    return next((one for one in sessions if reference(one.get("subscription")) == subscription_id), None)


def invoice_money(payments: Sequence[Mapping[str, Any]]) -> InvoiceMoney:
    """Add up the payments of an invoice (with their charges expanded)."""
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


def is_of(thing: Mapping[str, Any], purchase: Purchase) -> bool:
    """Whether an object at Stripe belongs to a purchase, by its metadata."""
    return _mapping(thing.get("metadata")).get("order_id") == purchase.order_id


def is_active(subscription: Mapping[str, Any], purchase: Purchase) -> bool:
    """Whether a subscription belongs to a purchase and has not ended."""
    return is_of(subscription, purchase) and subscription.get("status") not in _ENDED


def reference(value: object) -> str | None:
    """Return the id of another object, which Stripe returns as an id or expanded."""
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
            "product_data": {
                "name": (line.name or line.slug or line.id)[:_LONGEST_NAME],
                "metadata": {line.kind: line.id[:_LONGEST]},
            },
        },
    }


def _charged(intent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the charge of a payment intent that succeeded; an empty mapping for any other."""
    return _mapping(intent.get("latest_charge")) if intent.get("status") == "succeeded" else {}


def _number(thing: Mapping[str, Any], name: str) -> int:
    value = thing.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

"""The objects of a scripted Stripe as Stripe shows them: pure functions. See also: `stripe_objects` keeps them."""

import json
import time
from collections.abc import Mapping
from typing import Any


def event(number: int, kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
    """Make a webhook event of a thing as it is now."""
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": kind,
        "api_version": "2026-08-26.dahlia",
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": json.loads(json.dumps(thing))},
    }


def subscription(session: Mapping[str, Any]) -> dict[str, Any]:
    """Make the subscription that a paid session begins."""
    return {
        "id": session["subscription"],
        "object": "subscription",
        "status": "active",
        "customer": session["customer"],
        "metadata": session["metadata"],
    }


def charge(number: int, session: Mapping[str, Any], amount: int) -> dict[str, Any]:
    """Make the charge of a month; its payment intent is `pi_<number>`."""
    return {
        "id": f"ch_{number}",
        "object": "charge",
        "amount": amount,
        "amount_refunded": 0,
        "refunded": False,
        "currency": session["currency"],
        "customer": session["customer"],
        "payment_intent": f"pi_{number}",
        "metadata": {},
    }


def refund(number: int, charge: Mapping[str, Any], amount: int, status: str) -> dict[str, Any]:
    """Make a refund of a charge."""
    return {
        "id": f"re_{number}",
        "object": "refund",
        "amount": amount,
        "currency": charge["currency"],
        "charge": charge["id"],
        "payment_intent": charge["payment_intent"],
        "status": status,
    }


def dispute(charge: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Make the one dispute of a charge, of all that was paid."""
    return {
        "id": f"du_{charge['id']}",
        "object": "dispute",
        "amount": charge["amount"],
        "currency": charge["currency"],
        "charge": charge["id"],
        "payment_intent": charge["payment_intent"],
        "reason": "fraudulent",
        "status": status,
    }


def invoice(name: str, session: Mapping[str, Any], why: str) -> dict[str, Any]:
    """Make the invoice of a month; `why` is its billing reason."""
    details = {"subscription": session["subscription"], "metadata": session["metadata"]}
    return {
        "id": name,
        "object": "invoice",
        "billing_reason": why,
        "parent": {"type": "subscription_details", "subscription_details": details},
    }


def invoice_payment(intent: str, payment: Mapping[str, Any]) -> dict[str, Any]:
    """Make a payment of an invoice, with invoice and payment intent shown in full."""
    status = payment.get("status", "succeeded")
    shown = {"id": intent, "object": "payment_intent", "status": status, "latest_charge": payment["charge"]}
    return {
        "id": f"inpay_{intent}",
        "object": "invoice_payment",
        "invoice": payment["invoice"],
        "payment": {"type": "payment_intent", "payment_intent": shown},
    }

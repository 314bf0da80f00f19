"""What the customers of a scripted Stripe do, and their banks: pay, let a checkout expire, take money back.

Each method returns the webhook event that Stripe would then send; `signed` signs it. See also: `stripe_objects`, the
memory; `scripted_stripe`, which serves it.
"""

import json
from collections.abc import Mapping
from typing import Any

import stripe

from testbed import stripe_payloads
from testbed.stripe_objects import StripeObjects


class StripeCustomers(StripeObjects):
    """The state, with the actions at Stripe's own pages. Safe for use from several threads."""

    def pay(self, session_id: str, *, later: bool = False) -> dict[str, Any]:
        """Have the customer pay; `later`: by a delayed payment method. Return the event."""
        with self.lock:
            session = self._open(session_id)
            number = next(self._numbers)
            session.update(
                status="complete",
                payment_status="unpaid" if later else "paid",
                url=None,
                subscription=f"sub_{number}",
                invoice=f"in_{number}",
            )
            self.subscriptions[session["subscription"]] = stripe_payloads.subscription(session)
            if later:
                self._attempt(session)
            else:
                self._charge(session)
            return self.event("checkout.session.completed", session)

    def payment_succeeds(self, session_id: str) -> dict[str, Any]:
        """Have a `later` payment succeed. Return the event."""
        with self.lock:
            session = self.sessions[session_id]
            session["payment_status"] = "paid"
            self.pending_payments.pop(self._attempted(session))
            self._charge(session)
            return self.event("checkout.session.async_payment_succeeded", session)

    def payment_fails(self, session_id: str) -> dict[str, Any]:
        """Have a `later` payment fail. Return the event."""
        with self.lock:
            session = self.sessions[session_id]
            self.pending_payments[self._attempted(session)]["status"] = "requires_payment_method"
            return self.event("checkout.session.async_payment_failed", session)

    def expire(self, session_id: str) -> dict[str, Any]:
        """Have a session expire. Return the event."""
        with self.lock:
            return self.event("checkout.session.expired", self._expire(session_id))

    def second_session(self, session_id: str) -> dict[str, Any]:
        """Open a second checkout of the same order, as somebody at the dashboard may. Return the session."""
        with self.lock:
            first = self.sessions[session_id]
            name = f"cs_test_{next(self._numbers)}"
            made = {**first, "id": name, "status": "open", "payment_status": "unpaid", "subscription": None}
            self.sessions[name] = {**made, "invoice": None, "url": f"https://checkout.example.com/c/pay/{name}"}
            return self.sessions[name]

    def payment_of(self, session_id: str) -> dict[str, Any]:
        """Return the charge of the first month of a session."""
        with self.lock:
            invoice = self.sessions[session_id]["invoice"]
            (payment,) = (one for one in self.payments.values() if one["invoice"]["id"] == invoice)
            charge: dict[str, Any] = payment["charge"]
            return charge

    def refund(self, session_id: str, amount: int | None = None) -> dict[str, Any]:
        """Give back `amount` of what was paid, or all. Return the event."""
        with self.lock:
            charge = self.payment_of(session_id)
            charge["amount_refunded"] += amount or charge["amount"]
            charge["refunded"] = charge["amount_refunded"] == charge["amount"]
            return self.event("charge.refunded", charge)

    def refund_fails(self, session_id: str, amount: int) -> dict[str, Any]:
        """Have a refund of `amount` not reach the customer, whose money is ours again. Return the event."""
        with self.lock:
            charge = self.payment_of(session_id)
            charge["amount_refunded"] -= amount
            charge["refunded"] = False
            return self.event("refund.failed", stripe_payloads.refund(next(self._numbers), charge, amount, "failed"))

    def dispute(self, session_id: str, status: str = "needs_response", kind: str = "created") -> dict[str, Any]:
        """Have the customer's bank dispute the payment of a session, or its one dispute go on. Return the event."""
        with self.lock:
            shown = stripe_payloads.dispute(self.payment_of(session_id), status)
            return self.event(f"charge.dispute.{kind}", shown)

    def next_month(self, session_id: str) -> dict[str, Any]:
        """Charge the second month, in full, and give it back. Return the event of the refund."""
        with self.lock:
            session = self.sessions[session_id]
            if self.subscriptions[session["subscription"]]["status"] == "canceled":
                raise ValueError(f"{session['subscription']} has ended: nobody is charged for it")
            intent = self._charge(session, "subscription_cycle", session["amount_subtotal"])
            charge = self.payments[intent]["charge"]
            charge.update(amount_refunded=charge["amount"], refunded=True)
            return self.event("charge.refunded", charge)

    def event(self, kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
        """Make a webhook event of a thing as it is now."""
        return stripe_payloads.event(next(self._numbers), kind, thing)

    def _attempt(self, session: Mapping[str, Any]) -> None:
        invoice = stripe_payloads.invoice(session["invoice"], session, "subscription_create")
        self.pending_payments[f"pi_{next(self._numbers)}"] = {
            "invoice": invoice,
            "charge": None,
            "status": "processing",
        }

    def _attempted(self, session: Mapping[str, Any]) -> str:
        (found,) = (name for name, one in self.pending_payments.items() if one["invoice"]["id"] == session["invoice"])
        return found

    def _charge(self, session: Mapping[str, Any], why: str = "subscription_create", amount: int | None = None) -> str:
        number = next(self._numbers)
        charge = stripe_payloads.charge(number, session, session["amount_total"] if amount is None else amount)
        invoice = session["invoice"] if why == "subscription_create" else f"in_{number}"
        self.payments[charge["payment_intent"]] = {
            "charge": charge,
            "invoice": stripe_payloads.invoice(invoice, session, why),
        }
        return str(charge["payment_intent"])

    def _open(self, session_id: str) -> dict[str, Any]:
        session = self.sessions[session_id]
        if session["status"] != "open":
            raise ValueError(f"{session_id} is {session['status']}: nobody can pay it")
        return session


def signed(event: Mapping[str, Any], secret: str) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a webhook call, signed by Stripe's own library."""
    payload = json.dumps(event).encode()
    signature = stripe.WebhookSignature.generate_signature_header(payload.decode(), secret)
    return payload, {"Stripe-Signature": signature, "Content-Type": "application/json"}

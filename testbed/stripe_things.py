"""What a scripted Stripe remembers: customers, coupons, checkout sessions, payments; and what its customers do.

`pay`, `expire`, `refund` and their like play the customer, and return the webhook event that Stripe would then send;
`signed` signs it. Neighbours: `scripted_stripe` serves it; `stripe_shapes` has the forms; stripe-mock holds the words
of requests against Stripe's description, this one their sense: what a request should not have said is in `complaints`.
"""

import itertools
import json
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import stripe

from testbed import stripe_shapes

LABELS: Final = ("order_id", "tenant_id", "sovereign")
_DAY: Final = 24 * 3600


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An error in Stripe's shape, with a message such as ours must never pass on."""

    def __init__(self, status: int, kind: str, code: str | None) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"error": {"type": kind, "code": code, "message": f"{code}: someone@example.com req_12345"}}


class StripeThings:
    """The memory. Safe for use from several threads."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.customers: dict[str, dict[str, Any]] = {}
        self.coupons: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.payments: dict[str, dict[str, Any]] = {}
        """By payment intent: invoice and charge."""
        self.on_their_way: dict[str, dict[str, Any]] = {}
        """By payment intent: payments that were not charged yet, or never will be."""
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.prices: dict[str, int] = {}
        """Amounts of prices that were made in the dashboard."""
        self.shows_charges = True
        """Whether the key may read charges; a restricted one need not."""
        self.complaints: list[str] = []
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)

    @property
    def charged(self) -> int:
        """All that cards were charged and not given back, in Stripe's unit."""
        with self.lock:
            return sum(one["charge"]["amount"] - one["charge"]["amount_refunded"] for one in self.payments.values())

    def only_session(self) -> dict[str, Any]:
        """Return the one session that there is."""
        (one,) = self.sessions.values()
        return one

    def post(self, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Make or change something. Raises Refusal."""
        match path.removeprefix("/v1/").split("/"):
            case ["customers"]:
                return self._customer(params)
            case ["coupons"]:
                return self._coupon(params)
            case ["checkout", "sessions"]:
                return self._session(params)
            case ["checkout", "sessions", session, "expire"]:
                return self._expire(session)
        raise Refusal(404, "invalid_request_error", "url_unknown")

    def get(self, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Show something. Raises Refusal."""
        match path.removeprefix("/v1/").split("/"):
            case ["checkout", "sessions"]:
                found = [
                    one
                    for one in self.sessions.values()
                    if _matches(one, params, ("customer", "status", "subscription"))
                ]
                return {"object": "list", "url": path, "has_more": False, "data": found}
            case ["checkout", "sessions", session]:
                return self._known(self.sessions, session)
            case ["subscriptions"]:
                wanted = [one for one in self.subscriptions.values() if _matches(one, params, ("customer",))]
                found = [one for one in wanted if one["status"] != "canceled"]
                return {"object": "list", "url": path, "has_more": False, "data": found}
            case ["invoice_payments"]:
                return {"object": "list", "url": path, "has_more": False, "data": self._invoice_payments(params)}
        raise Refusal(404, "invalid_request_error", "url_unknown")

    def delete(self, path: str) -> dict[str, Any]:
        """End something. Raises Refusal."""
        match path.removeprefix("/v1/").split("/"):
            case ["subscriptions", name]:
                subscription = self._known(self.subscriptions, name)
                if subscription["status"] == "canceled":
                    raise Refusal(404, "invalid_request_error", "resource_missing")
                subscription["status"] = "canceled"
                return subscription
        raise Refusal(404, "invalid_request_error", "url_unknown")

    def _customer(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._expect_labels("customer", params)
        made = {**params, "id": f"cus_{next(self._numbers)}", "object": "customer"}
        self.customers[made["id"]] = made
        return made

    def _coupon(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._expect_labels("coupon", params)
        if params["id"] in self.coupons:
            raise Refusal(400, "invalid_request_error", "resource_already_exists")
        self._expect(params.get("duration") == "once", "a coupon that lasts")
        self._expect(params.get("max_redemptions") == "1", "a coupon for many")
        self._expect(params["currency"] == self.currency, "a coupon in another currency")
        made = {**params, "object": "coupon", "amount_off": self._amount(params["amount_off"])}
        self.coupons[made["id"]] = made
        return made

    def _session(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._expect_labels("session", params)
        self._expect_labels("subscription", params.get("subscription_data", {}))
        self._expect(params.get("mode") == "subscription", "a session of another mode")
        self._expect("allow_promotion_codes" not in params, "other promotion codes can be stacked")
        self._known(self.customers, params["customer"])
        expires = int(params["expires_at"])
        if not time.time() + 1800 <= expires <= time.time() + _DAY:
            raise Refusal(400, "invalid_request_error", "parameter_invalid")
        total = sum(self._price(item) for item in _list(params["line_items"]))
        off = sum(self._known(self.coupons, one["coupon"])["amount_off"] for one in _list(params.get("discounts", {})))
        number = next(self._numbers)
        made = {
            "id": f"cs_test_{number}",
            "object": "checkout.session",
            "url": f"https://checkout.example.com/c/pay/cs_test_{number}",
            "status": "open",
            "payment_status": "unpaid",
            "mode": params["mode"],
            "customer": params["customer"],
            "client_reference_id": params.get("client_reference_id"),
            "currency": self.currency,
            "amount_subtotal": total,
            "amount_total": max(0, total - off),
            "expires_at": expires,
            "metadata": params.get("metadata", {}),
            "subscription": None,
            "invoice": None,
        }
        self.sessions[made["id"]] = made
        return made

    def _price(self, item: Mapping[str, Any]) -> int:
        if "price" in item:
            return self.prices[item["price"]] * int(item["quantity"])
        data = item["price_data"]
        self._expect(data["currency"] == self.currency, "a price in another currency")
        self._expect(data["recurring"] == {"interval": "month"}, "a price that is not monthly")
        self._expect(bool(data["product_data"]["name"]), "a product without a name")
        return self._amount(data["unit_amount"]) * int(item["quantity"])

    def _expire(self, session_id: str) -> dict[str, Any]:
        session = self._known(self.sessions, session_id)
        if session["status"] != "open":
            raise Refusal(400, "invalid_request_error", "session_not_open")
        session.update(status="expired", url=None)
        return session

    def pay(self, session_id: str, *, later: bool = False) -> dict[str, Any]:
        """Have the customer pay; `later`: the money is on its way. Return the event."""
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
            self.subscriptions[session["subscription"]] = stripe_shapes.subscription(session)
            if later:
                self._attempt(session)
            else:
                self._charge(session)
            return self.event("checkout.session.completed", session)

    def arrive(self, session_id: str) -> dict[str, Any]:
        """Have the money of a `later` payment arrive. Return the event."""
        with self.lock:
            session = self.sessions[session_id]
            session["payment_status"] = "paid"
            self.on_their_way.pop(self._attempted(session))
            self._charge(session)
            return self.event("checkout.session.async_payment_succeeded", session)

    def bounce(self, session_id: str) -> dict[str, Any]:
        """Have the money of a `later` payment never arrive. Return the event."""
        with self.lock:
            session = self.sessions[session_id]
            self.on_their_way[self._attempted(session)]["status"] = "requires_payment_method"
            return self.event("checkout.session.async_payment_failed", session)

    def expire(self, session_id: str) -> dict[str, Any]:
        """Have the time of a session run out. Return the event."""
        with self.lock:
            return self.event("checkout.session.expired", self._expire(session_id))

    def second(self, session_id: str) -> dict[str, Any]:
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
            return self.event("refund.failed", stripe_shapes.refund(next(self._numbers), charge, amount, "failed"))

    def dispute(self, session_id: str, status: str = "needs_response", kind: str = "created") -> dict[str, Any]:
        """Have the customer's bank dispute the payment of a session, or its one dispute go on. Return the event."""
        with self.lock:
            shown = stripe_shapes.dispute(self.payment_of(session_id), status)
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
        return stripe_shapes.event(next(self._numbers), kind, thing)

    def _attempt(self, session: Mapping[str, Any]) -> None:
        invoice = stripe_shapes.invoice(session["invoice"], session, "subscription_create")
        self.on_their_way[f"pi_{next(self._numbers)}"] = {"invoice": invoice, "charge": None, "status": "processing"}

    def _attempted(self, session: Mapping[str, Any]) -> str:
        (found,) = (name for name, one in self.on_their_way.items() if one["invoice"]["id"] == session["invoice"])
        return found

    def _charge(self, session: Mapping[str, Any], why: str = "subscription_create", amount: int | None = None) -> str:
        number = next(self._numbers)
        charge = stripe_shapes.charge(number, session, session["amount_total"] if amount is None else amount)
        invoice = session["invoice"] if why == "subscription_create" else f"in_{number}"
        self.payments[charge["payment_intent"]] = {
            "charge": charge,
            "invoice": stripe_shapes.invoice(invoice, session, why),
        }
        return str(charge["payment_intent"])

    def _invoice_payments(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        asks_for_charges = any("latest_charge" in path for path in params.get("expand", {}).values())
        if asks_for_charges and not self.shows_charges:
            raise Refusal(403, "invalid_request_error", "more_permissions_required")
        found = []
        for intent, one in (self.payments | self.on_their_way).items():
            asked = params.get("payment", {}).get("payment_intent", intent)
            if intent == asked and one["invoice"]["id"] == params.get("invoice", one["invoice"]["id"]):
                found.append(stripe_shapes.invoice_payment(intent, one))
        return found

    def _open(self, session_id: str) -> dict[str, Any]:
        session = self.sessions[session_id]
        if session["status"] != "open":
            raise ValueError(f"{session_id} is {session['status']}: nobody can pay it")
        return session

    def _known(self, things: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
        if name not in things:
            raise Refusal(404, "invalid_request_error", "resource_missing")
        return things[name]

    def _amount(self, text: str) -> int:
        amount = int(text)
        self._expect(amount > 0, f"an amount of {amount}")
        self._expect(self.currency != "omr" or amount % 10 == 0, f"{amount} does not end in 0")
        return amount

    def _expect_labels(self, what: str, params: Mapping[str, Any]) -> None:
        labels = params.get("metadata", {})
        self._expect(all(labels.get(name) for name in LABELS), f"a {what} without {', '.join(LABELS)}")

    def _expect(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.complaints.append(complaint)


def signed(event: Mapping[str, Any], secret: str) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a webhook call, signed by Stripe's own library."""
    payload = json.dumps(event).encode()
    signature = stripe.WebhookSignature.generate_signature_header(payload.decode(), secret)
    return payload, {"Stripe-Signature": signature, "Content-Type": "application/json"}


def _matches(thing: Mapping[str, Any], params: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(name not in params or thing[name] == params[name] for name in names)


def _list(indexed: Mapping[str, Any]) -> list[Any]:
    return [indexed[index] for index in sorted(indexed, key=int)]

"""The state of a scripted Stripe: customers, coupons, checkout sessions, payments.

stripe-mock checks the syntax of requests against Stripe's description, this one their meaning: what is wrong with a
request is in `invalid_requests`. See also: `stripe_customers` pay; `scripted_stripe` serves it; `stripe_payloads` makes
the bodies.
"""

import itertools
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from testbed import stripe_payloads

LABELS: Final = ("order_id", "tenant_id", "sovereign")
_DAY: Final = 24 * 3600


class Refusal(Exception):  # noqa: N818 - it is a response
    """An error in Stripe's shape, with a message such as ours must never pass on."""

    def __init__(self, status: int, kind: str, code: str | None) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"error": {"type": kind, "code": code, "message": f"{code}: someone@example.com req_12345"}}


class StripeObjects:
    """The state. Safe for use from several threads."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.customers: dict[str, dict[str, Any]] = {}
        self.coupons: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.payments: dict[str, dict[str, Any]] = {}
        """By payment intent: invoice and charge."""
        self.pending_payments: dict[str, dict[str, Any]] = {}
        """By payment intent: payments that were not charged yet, or never will be."""
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.prices: dict[str, int] = {}
        """Amounts of prices that were made in the dashboard."""
        self.clock_offset = 0.0
        """Stripe's clock minus this machine's, in seconds."""
        self.shows_charges = True
        """Whether the key may read charges; a restricted one need not."""
        self.invalid_requests: list[str] = []
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
            case ["customers"]:
                wanted = [one for one in self.customers.values() if _matches(one, params, ("email",))]
                return {"object": "list", "url": path, "has_more": False, "data": wanted}
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
        now = time.time() + self.clock_offset
        if not now + 1800 <= expires <= now + _DAY:
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

    def _invoice_payments(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        asks_for_charges = any("latest_charge" in path for path in params.get("expand", {}).values())
        if asks_for_charges and not self.shows_charges:
            raise Refusal(403, "invalid_request_error", "more_permissions_required")
        found = []
        for intent, one in (self.payments | self.pending_payments).items():
            asked = params.get("payment", {}).get("payment_intent", intent)
            if intent == asked and one["invoice"]["id"] == params.get("invoice", one["invoice"]["id"]):
                found.append(stripe_payloads.invoice_payment(intent, one))
        return found

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

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.invalid_requests.append(fault)


def _matches(thing: Mapping[str, Any], params: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(name not in params or thing[name] == params[name] for name in names)


def _list(indexed: Mapping[str, Any]) -> list[Any]:
    return [indexed[index] for index in sorted(indexed, key=int)]

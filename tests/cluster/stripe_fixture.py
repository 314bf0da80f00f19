"""What orders need: a catalog, a scripted Stripe, and customers who pay.

See also: conftest.py gives the session's operator one; test_order_*.py buy; testbed/scripted_stripe.py is the Stripe.
"""

import json
import urllib.request
from pathlib import Path
from typing import Any, Final

from testbed.operator_process import OperatorProcess
from testbed.scripted_stripe import KEY, ScriptedStripe
from testbed.stripe_customers import signed
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import CustomObject, Object, Predicate, condition, status

SECRET: Final = "whsec_everyday"
SOVEREIGN: Final = "everyday.example.com"
PLANS: Final = [
    {"id": "s", "slug": "small", "name": "Small", "stripe_price_id": "", "price_omr": 5},
    {"id": "m", "slug": "medium", "name": "Medium", "stripe_price_id": "", "price_omr": 9},
    {"id": "xl", "slug": "x-large", "name": "Extra large", "stripe_price_id": "", "price_omr": 30},
]
ADDONS: Final = [
    {"id": "daily-backup", "slug": "daily-backup", "price_omr": 3, "included": False},
    {"id": "waf", "slug": "waf", "price_omr": 7, "included": True},
]


class StripeFixture:
    """Catalog and Stripe of one operator; `env` is what it has to know of them."""

    def __init__(self, stripe: ScriptedStripe, folder: Path) -> None:
        """`folder` takes the catalog and Stripe's key, which a test may take away."""
        self.stripe = stripe
        self.key = folder / "stripe-key"
        self.key.write_text(KEY)
        catalog = folder / "catalog.json"
        catalog.write_text(json.dumps({"plans": PLANS, "addons": ADDONS}))
        self.env = {
            "VOUCHER_OPERATOR_SOVEREIGN": SOVEREIGN,
            "VOUCHER_OPERATOR_CATALOG_FILE": str(catalog),
            "VOUCHER_OPERATOR_STRIPE_API_BASE": stripe.url,
            "VOUCHER_OPERATOR_STRIPE_API_KEY_FILE": str(self.key),
            "VOUCHER_OPERATOR_STRIPE_WEBHOOK_SECRET": SECRET,
            "VOUCHER_OPERATOR_CHECKOUT_SUCCESS_URL": "https://everyday.example.com/paid",
            "VOUCHER_OPERATOR_SESSION_LOOKUP_INTERVAL": "1",
        }

    def session(self, order: CustomObject) -> dict[str, Any]:
        """Return the one checkout of an order."""
        order_id = order.body()["status"]["orderID"]
        (found,) = (one for one in self.stripe.sessions.values() if one["metadata"]["order_id"] == order_id)
        return found

    def deliver(self, operator: OperatorProcess, event: dict[str, Any]) -> str:
        """Call the webhook as Stripe does; return the result."""
        body, headers = signed(event, SECRET)
        url = f"http://127.0.0.1:{operator.webhook_port}/billing/webhook"
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return str(json.loads(answer.read())["result"])


def order(plan: str = "m", *addons: str, **more: Any) -> Object:
    """Ask for a plan."""
    return {"planID": plan, "addons": list(addons), **more}


def awaiting() -> Predicate:
    """Return a predicate: the customer can pay."""
    return lambda body: status(state="AwaitingPayment")(body) and "checkoutURL" in body["status"]


def conditions_of(body: Object) -> dict[str, tuple[str, str]]:
    """Return status and reason of each condition."""
    types = [one["type"] for one in body["status"]["conditions"]]
    return {kind: (condition(body, kind)["status"], condition(body, kind)["reason"]) for kind in types}


def purchase(ledger: LedgerReader, made: CustomObject) -> tuple[Any, ...]:
    """Return state, total, held and due of what a Redemption bought; empty when it bought nothing."""
    found = ledger.rows(
        "SELECT state, total_minor, held_minor, due_minor FROM vouchers.purchase WHERE uid = %s", made.uid
    )
    return found[0] if found else ()

"""The demo's orders: one by credit alone, one that cannot be paid and leaves nothing behind, and the same by card.

A scripted Stripe takes the place of the real one, and plays the customer who pays. Its key comes late, as a Secret may:
until then an order that the credit does not cover is refused. See also: `demo` runs this; `scripted_stripe` is the
Stripe; `examples/` has the prices and the orders.
"""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import yaml

from testbed.cluster import Stack
from testbed.demo_terminal import kubectl, say, wait_for
from testbed.interpreter import ROOT
from testbed.operator_process import OperatorProcess
from testbed.scripted_stripe import KEY, ScriptedStripe
from testbed.stripe_customers import signed

_CATALOG: Final = ROOT / "examples" / "50-catalog.yaml"
_BY_CREDIT: Final = ROOT / "examples" / "60-order-by-credit.yaml"
_GIFT: Final = ROOT / "examples" / "70-gift.yaml"
_BY_CARD: Final = ROOT / "examples" / "80-order-by-card.yaml"
_ORDER: Final = "redemption/huda-buys"
_VOUCHER: Final = "voucher/gift-10"
_SECRET: Final = "whsec_demo"


class StripeDemo:
    """The catalog as a mounted file, and a Stripe; `env` is what the operator has to know of them."""

    def __init__(self, stripe: ScriptedStripe, folder: Path) -> None:
        """`folder` takes what a pod would have mounted; Stripe's key is not there yet."""
        self.stripe = stripe
        self._key = folder / "stripe-key"
        catalog = folder / "catalog.json"
        catalog.write_text(yaml.safe_load(_CATALOG.read_text())["data"]["catalog.json"])
        self.env = {
            "VOUCHER_OPERATOR_SOVEREIGN": "demo.example.com",
            "VOUCHER_OPERATOR_CATALOG_FILE": str(catalog),
            "VOUCHER_OPERATOR_STRIPE_API_BASE": stripe.url,
            "VOUCHER_OPERATOR_STRIPE_API_KEY_FILE": str(self._key),
            "VOUCHER_OPERATOR_STRIPE_WEBHOOK_SECRET": _SECRET,
            "VOUCHER_OPERATOR_CHECKOUT_SUCCESS_URL": "https://demo.example.com/paid",
            "VOUCHER_OPERATOR_COUNTER_SYNC_INTERVAL": "1",
        }

    def mount_stripe_key(self) -> None:
        """Mount Stripe's key."""
        self._key.write_text(KEY)

    def pay(self, operator: OperatorProcess, checkout_url: str) -> None:
        """Have the customer pay, and Stripe call the operator's webhook."""
        event = self.stripe.pay(checkout_url.rsplit("/", 1)[1])
        body, headers = signed(event, _SECRET)
        url = f"http://127.0.0.1:{operator.webhook_port}/billing/webhook"
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            print(f"POST /billing/webhook {event['type']} -> {answer.status} {json.loads(answer.read())['result']}")


@contextmanager
def open_stripe_demo(folder: Path) -> Iterator[StripeDemo]:
    """Run a Stripe while the demo lasts."""
    with ScriptedStripe() as stripe:
        yield StripeDemo(stripe, folder)


def buy(stack: Stack, operator: OperatorProcess, stripe_demo: StripeDemo) -> None:
    """Show the orders. The last one is left out on a ledger that has it from an earlier run."""
    _by_credit(stack)
    if _seen(stack):
        say("This ledger has an order huda-buys from before: an order is bound to its name for ever, so it is left out")
        return
    _refused(stack)
    _by_card(stack, operator, stripe_demo)


def _by_credit(stack: Stack) -> None:
    say("Said buys a plan for 12 OMR. His credit covers it: paid at once, no card")
    kubectl(stack, "apply", f"--filename={_CATALOG}", f"--filename={_BY_CREDIT}")
    wait_for(stack, ".status.state", "Completed", "redemption/said-buys")


def _refused(stack: Stack) -> None:
    say("Huda has a voucher worth 10 and orders for 30, and Stripe is not configured yet")
    kubectl(stack, "apply", f"--filename={_GIFT}", f"--filename={_BY_CARD}")
    wait_for(stack, ".status.state", "RolledBack", _ORDER)
    kubectl(stack, "get", _ORDER)
    say("Nothing was consumed: her voucher is as good as before")
    kubectl(stack, "get", _VOUCHER)


def _by_card(stack: Stack, operator: OperatorProcess, stripe_demo: StripeDemo) -> None:
    say("Stripe's key arrives (of a mock). The same order again, under the same name")
    stripe_demo.mount_stripe_key()
    kubectl(stack, "replace", "--force", f"--filename={_BY_CARD}")
    wait_for(stack, ".status.state", "AwaitingPayment", _ORDER)
    kubectl(stack, "get", _ORDER, "--output=jsonpath={.status.conditions[?(@.type=='OrderPlaced')].message}")
    url = stack.cluster.kubectl("--namespace=billing", "get", _ORDER, "--output=jsonpath={.status.checkoutURL}")
    say("The mock plays Huda, who pays at status.checkoutURL, and Stripe, which then calls the operator, signed")
    print(url)
    stripe_demo.pay(operator, url)
    wait_for(stack, ".status.state", "Completed", _ORDER)
    wait_for(stack, ".status.redeemed", "1/1", _VOUCHER)


def _seen(stack: Stack) -> bool:
    with psycopg.connect(stack.database.runtime_url) as connection:
        row = connection.execute("SELECT 1 FROM vouchers.purchase WHERE key = 'billing/huda-buys'").fetchone()
    return row is not None

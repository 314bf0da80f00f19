"""An order that no card can pay is refused before anything is placed: code, credit and name stay usable."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, spec
from tests.cluster.stripe_fixture import ADDONS, PLANS, order

EXTRAS = [f"extra-{n}" for n in range(21)]
MANY = [{"id": name, "slug": name, "price_omr": 1, "included": False} for name in EXTRAS]
HUGE = {"id": "huge", "slug": "huge", "name": "Huge", "stripe_price_id": "", "price_omr": 200_000}
GIFT = """
WITH c AS (INSERT INTO customers (user_id, tenant_id, email) VALUES (%s, 'kestrel', 'a@example.com') RETURNING id)
INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, 200000, 'gift' FROM c
"""


@pytest.fixture(autouse=True)
def catalog(harness: ControllerHarness) -> None:
    file = Path(harness.stripe_fixture.env["VOUCHER_OPERATOR_CATALOG_FILE"])
    file.write_text(json.dumps({"plans": [*PLANS, HUGE], "addons": [*ADDONS, *MANY]}))


ORDERS: dict[str, tuple[dict[str, Any], str]] = {
    "too many items": (order("xl", *EXTRAS), "at most 20 items with a price"),
    "too small": (order("s"), "at least 6.000 OMR"),
    "too large": (order("huge"), "at most 99999.990 OMR"),
}


@pytest.mark.parametrize("harness", [{"stripe_minimum_minor": 6_000}], indirect=True)
@pytest.mark.parametrize(("asked", "message"), ORDERS.values(), ids=ORDERS)
async def test_order_that_no_card_can_pay_uses_nothing(
    harness: ControllerHarness, asked: dict[str, Any], message: str
) -> None:
    """With enough credit the same order, under the same name and with the same code, is completed."""
    code = await harness.issue(2_000)
    body = harness.apply("kestrel", spec(code, order=asked))
    status = await harness.reconcile("kestrel")
    assert (status["state"], reason(status)) == ("Rejected", ("False", "InvalidOrder"))
    assert message in status["conditions"][0]["message"]
    assert await harness.sql("SELECT times_redeemed FROM promo_codes") == [(0,)]
    assert await harness.sql("SELECT count(*) FROM orders") == [(0,)]
    assert harness.stripe_fixture.stripe.requests == []
    user = body["spec"]["customer"]["userID"]
    await harness.sql(GIFT, user)
    harness.remove("kestrel")
    harness.apply("kestrel", spec(code, user, order=asked))
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"


async def test_smaller_hold_leaves_a_charge_of_the_minimum(harness: ControllerHarness) -> None:
    """The credit leaves 0.100 to pay, less than a card can be charged: less credit is held."""
    harness.apply("kestrel", spec(await harness.issue(8_900)))
    assert (await harness.reconcile("kestrel"))["state"] == "AwaitingPayment"
    found = await harness.purchase("kestrel")
    assert (found.total_minor, found.held_minor, found.due_minor) == (9_000, 8_740, 260)


async def test_credit_off_the_step_of_a_card_leaves_a_charge_on_it(harness: ControllerHarness) -> None:
    """Three decimals, of which the last one of a charge is 0."""
    harness.apply("kestrel", spec(await harness.issue(1_234)))
    assert (await harness.reconcile("kestrel"))["state"] == "AwaitingPayment"
    found = await harness.purchase("kestrel")
    assert (found.held_minor, found.due_minor) == (1_230, 7_770)

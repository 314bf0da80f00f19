"""What no card can pay is known before an order is placed: the number of lines, the steps and the largest amount."""

from dataclasses import replace

import pytest

from tests.payments.helpers import settings
from tests.payments.test_stripe_requests import purchase
from voucher_operator.ledger.purchase.types import Line
from voucher_operator.payments import stripe_requests
from voucher_operator.payments.checkout_limits import MAX_LINES, fault, too_small
from voucher_operator.payments.currency import rules

OMR, USD = rules("OMR"), rules("USD")


def lines(*prices: int, price_id: str | None = None) -> tuple[Line, ...]:
    return tuple(Line("addon", f"a{n}", f"a{n}", f"Add-on {n}", price, price_id) for n, price in enumerate(prices))


def test_order_within_the_limits_has_no_fault() -> None:
    assert fault(lines(*[1_000] * MAX_LINES, *[0] * 30), OMR) is None
    assert fault(lines(12_345), USD) is None
    assert fault((), OMR) is None


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ([1_000] * (MAX_LINES + 1), "A card can pay at most 20 items with a price in one order"),
        ([12_345], "A card is charged in steps of 0.010 OMR"),
        ([12_345, 5], "A card is charged in steps of 0.010 OMR"),
        ([99_999_990, 10], "A card is charged at most 99999.990 OMR"),
    ],
)
def test_order_beyond_a_limit_has_a_fault_that_says_what_to_do(prices: list[int], message: str) -> None:
    found = fault(lines(*prices), OMR)
    assert found is not None
    assert found.startswith(message)
    assert found.endswith("or order with credit that covers the order.")


def test_price_at_stripe_may_be_off_the_step_while_the_total_is_not() -> None:
    """Its amount is Stripe's; but the total is split into credit and charge, both of whole steps."""
    assert fault(lines(12_345, 12_345, price_id="price_1"), OMR) is None
    assert fault(lines(12_345, price_id="price_1"), OMR) is not None


def test_smallest_charge_is_named() -> None:
    assert too_small(OMR).startswith("A card is charged at least 0.260 OMR")


def test_order_without_a_fault_has_a_request_of_valid_amounts() -> None:
    """Every amount that is sent ends in 0, whatever the credit is."""
    for held in (10, 4_990, 10_000):
        bought = purchase(held_minor=held, due_minor=19_000 - held)
        assert stripe_requests.coupon(bought, "here", OMR)["amount_off"] == held
        stripe_requests.session(bought, "cus_1", "credit-1", settings(), OMR)


def test_names_longer_than_stripe_takes_are_cut() -> None:
    long = replace(purchase().lines[0], name="x" * 300, id="y" * 600)
    asked = stripe_requests.session(purchase(lines=(long,)), "cus_1", None, settings(), OMR)
    (item,) = asked["line_items"]
    product = item["price_data"]["product_data"]
    assert (len(product["name"]), len(product["metadata"]["plan"])) == (250, 500)

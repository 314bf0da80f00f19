"""Amounts on their way to Stripe and back, and the rules that an order is placed by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voucher_operator.payments.currency import rules
from voucher_operator.resources.errors import PaymentRejectedError
from voucher_operator.resources.money import MINOR_DIGITS


@pytest.mark.parametrize(
    ("currency", "step", "minimum", "minor", "at_stripe"),
    [
        ("OMR", 10, 260, 12_340, 12_340),
        ("KWD", 10, 10, 12_340, 12_340),
        ("USD", 1, 50, 1_234, 1_234),
        ("EUR", 1, 50, 50, 50),
        ("JPY", 1, 50, 500, 500),
        ("MGA", 100, 100, 1_200, 12),
        ("ISK", 1, 1, 5, 500),
        ("UGX", 1, 1, 5_000, 500_000),
        ("HUF", 1, 17_500, 1_045, 1_045),
    ],
)
def test_each_currency_has_its_step_minimum_and_stripe_amount(
    currency: str, step: int, minimum: int, minor: int, at_stripe: int
) -> None:
    found = rules(currency)
    assert (found.step_minor, found.minimum_minor) == (step, minimum)
    assert found.to_stripe(minor) == at_stripe


@given(currency=st.sampled_from(sorted(MINOR_DIGITS)), steps=st.integers(0, 10**9))
def test_amount_to_stripe_and_back_is_unchanged(currency: str, steps: int) -> None:
    found = rules(currency)
    assert found.from_stripe(found.to_stripe(steps * found.step_minor)) == steps * found.step_minor


def test_every_minimum_can_be_paid() -> None:
    for found in map(rules, MINOR_DIGITS):
        assert found.minimum_minor > 0, found
        assert found.minimum_minor % found.step_minor == 0, found


def test_amount_off_the_step_is_a_rejected_payment() -> None:
    with pytest.raises(PaymentRejectedError, match="only in steps of 10"):
        rules("OMR").to_stripe(12_345)


def test_configured_minimum_replaces_the_default() -> None:
    assert rules("OMR", 1_000).minimum_minor == 1_000
    with pytest.raises(ValueError, match="unknown currency"):
        rules("XYZ")

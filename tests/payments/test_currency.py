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
        ("KWD", 10, 240, 12_340, 12_340),
        ("TND", 10, 2_400, 12_340, 12_340),
        ("TRY", 1, 3_600, 1_234, 1_234),
        ("ZAR", 1, 1_425, 1_234, 1_234),
        ("ILS", 1, 285, 1_234, 1_234),
        ("IDR", 1, 1_275_000, 1_234, 1_234),
        ("EGP", 1, 3_900, 1_234, 1_234),
        ("USD", 1, 50, 1_234, 1_234),
        ("EUR", 1, 50, 50, 50),
        ("JPY", 1, 50, 500, 500),
        ("MGA", 100, 352_500, 1_200, 12),
        ("ISK", 1, 105, 5, 500),
        ("UGX", 1, 2_813, 5_000, 500_000),
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


def test_every_minimum_and_maximum_can_be_paid() -> None:
    for found in map(rules, MINOR_DIGITS):
        assert 0 < found.minimum_minor < found.maximum_minor, found
        assert found.minimum_minor % found.step_minor == found.maximum_minor % found.step_minor == 0, found


@pytest.mark.parametrize(
    ("currency", "maximum"),
    [("USD", 99_999_999), ("OMR", 99_999_990), ("UGX", 9_999_999_999), ("IDR", 999_999_999_999)],
)
def test_largest_charge_has_the_digits_that_stripe_takes(currency: str, maximum: int) -> None:
    """Eight, and up to twelve where eight are a usual price."""
    assert rules(currency).maximum_minor == maximum


def test_every_currency_that_stripe_charges_in_has_a_minimum_of_half_a_dollar() -> None:
    """Units for half a dollar, rounded down, of currencies whose rate has long been fixed or is far from the limit."""
    half = {
        "AED": 1.8,
        "BHD": 0.18,
        "KWD": 0.15,
        "JOD": 0.35,
        "OMR": 0.19,
        "QAR": 1.8,
        "SAR": 1.8,
        "XAF": 250,
        "XOF": 250,
    }
    for currency, least in half.items():
        assert rules(currency).minimum_minor >= least * 10 ** MINOR_DIGITS[currency], currency


def test_amount_off_the_step_is_a_rejected_payment() -> None:
    with pytest.raises(PaymentRejectedError, match="only in steps of 10"):
        rules("OMR").to_stripe(12_345)


def test_configured_minimum_replaces_the_default() -> None:
    assert rules("OMR", 1_000).minimum_minor == 1_000
    with pytest.raises(ValueError, match="unknown currency"):
        rules("XYZ")

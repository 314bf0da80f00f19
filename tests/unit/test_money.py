"""Amounts: decimals of major units in, integers of minor units out, and back, without loss."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voucher_operator.resources.money import (
    MAX_WHOLE_UNITS,
    MINOR_DIGITS,
    format_amount,
    minor_digits,
    parse_amount,
    scale,
)

CURRENCIES = st.sampled_from(sorted(MINOR_DIGITS))


@pytest.mark.parametrize(("currency", "digits"), [("OMR", 3), ("USD", 2), ("EUR", 2), ("JPY", 0), ("CLF", 4)])
def test_minor_digits_and_scale_follow_iso_4217(currency: str, digits: int) -> None:
    assert minor_digits(currency) == digits
    assert scale(currency) == 10**digits


def test_currency_table_is_complete() -> None:
    assert len(MINOR_DIGITS) == 165
    assert set(MINOR_DIGITS.values()) == {0, 2, 3, 4}


@pytest.mark.parametrize("currency", ["XYZ", "omr", "", "XAU", "BGN", "OMR "])
def test_unknown_currency_is_an_error(currency: str) -> None:
    for ask in (minor_digits, scale, lambda asked: parse_amount(1, asked), lambda asked: format_amount(1, asked)):
        with pytest.raises(ValueError, match="write an active ISO 4217 code in capitals, such as OMR"):
            ask(currency)


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        (200, "OMR", 200_000),
        ("200", "OMR", 200_000),
        ("25.500", "OMR", 25_500),
        ("25.5", "OMR", 25_500),
        ("0.001", "OMR", 1),
        (1, "JPY", 1),
        ("0.29", "USD", 29),
        ("1.1", "USD", 110),
        (1_000_000_000, "CLF", 10_000_000_000_000),
        ("1000000000.000", "OMR", 1_000_000_000_000),
    ],
)
def test_amount_is_parsed_to_minor_units(value: int | str, currency: str, minor: int) -> None:
    assert parse_amount(value, currency) == minor


FORM = r'write 200 or "25\.500", at most 1000000000, without sign'


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", FORM),
        ("many", FORM),
        ("1e3", FORM),
        ("+1", FORM),
        ("-1", FORM),
        (-1, FORM),
        (" 1", FORM),
        ("1\n", FORM),
        ("1,000", FORM),
        ("01", FORM),
        ("1.", FORM),
        (".5", FORM),
        ("\u0661", FORM),
        ("NaN", FORM),
        (10**4000, FORM),
        ("9" * 5000, FORM),
        ("1.2345", r'too many decimals: OMR has 3, write 200 or "25\.500"'),
        ("0.0000", "too many decimals"),
        (0, "write more than 0 and at most 1000000000 OMR"),
        ("0.000", "write more than 0"),
        (1_000_000_001, "write more than 0 and at most 1000000000 OMR"),
        ("1000000000.001", "at most 1000000000 OMR"),
    ],
)
def test_invalid_amount_is_refused_with_advice(value: int | str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_amount(value, "OMR")


def test_huge_integer_is_refused() -> None:
    with pytest.raises(ValueError, match=FORM):
        parse_amount(10**5000, "OMR")


@pytest.mark.parametrize("value", [1.5, True, None, Decimal("1.5")])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be an integer or a string"):
        parse_amount(value, "OMR")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (25_500, "OMR", "25.500"),
        (1, "OMR", "0.001"),
        (0, "OMR", "0.000"),
        (-1, "OMR", "-0.001"),
        (-12_345, "OMR", "-12.345"),
        (7, "JPY", "7"),
        (-7, "JPY", "-7"),
        (123, "USD", "1.23"),
    ],
)
def test_amount_is_formatted_with_all_decimals(minor: int, currency: str, text: str) -> None:
    assert format_amount(minor, currency) == text


@given(currency=CURRENCIES, data=st.data())
def test_formatted_amount_parses_to_itself(currency: str, data: st.DataObject) -> None:
    minor = data.draw(st.integers(min_value=1, max_value=MAX_WHOLE_UNITS * scale(currency)))
    assert parse_amount(format_amount(minor, currency), currency) == minor


@given(currency=CURRENCIES, text=st.from_regex(r"[0-9]{1,11}(\.[0-9]{0,5})?", fullmatch=True))
def test_parsed_amount_equals_its_decimal(currency: str, text: str) -> None:
    try:
        minor = parse_amount(text, currency)
    except ValueError:
        return
    assert Decimal(minor) == Decimal(text) * scale(currency)
    assert 0 < minor <= MAX_WHOLE_UNITS * scale(currency)

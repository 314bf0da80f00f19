"""Codes: one normal form, and no message that gives a code away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voucher_operator.resources.codes import check_prefix, normal_code, validate_code
from voucher_operator.resources.errors import CodeNotAllowedError, InvalidCodeError
from voucher_operator.resources.reasons import Reason


@pytest.mark.parametrize("text", ["OMANTEL-200", "omantel-200", " Omantel-200\n", "\tOMANTEL-200\r\n"])
def test_codes_are_normalised_by_strip_and_upper_case(text: str) -> None:
    assert normal_code(text) == "OMANTEL-200"
    assert validate_code(text) == "OMANTEL-200"


@pytest.mark.parametrize("text", ["ABC", "---", "0" * 64, "a" * 64 + "\n"])
def test_code_length_limits_are_inclusive(text: str) -> None:
    assert validate_code(text) == text.strip().upper()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "AB",
        "A" * 65,
        "A B C",
        "A_B_C",
        "ABC\nDEF",
        "ÄBC",
        "straße",
        "\u0131stanbul",
        "ABC\0",
        "\u017fecret",
        " " * 5000 + "ABC",
    ],
)
def test_invalid_code_is_refused_with_a_fixed_message(text: str) -> None:
    with pytest.raises(InvalidCodeError) as caught:
        validate_code(text)
    assert caught.value.reason is Reason.INVALID_CODE
    assert caught.value.message == "A code is 3 to 64 characters of A-Z, 0-9 and '-': put such a code into the Secret."


@given(st.text())
def test_refusal_contains_no_part_of_the_code(text: str) -> None:
    try:
        assert validate_code(text) == validate_code(validate_code(text))
    except InvalidCodeError as error:
        said = (error.args, error.__cause__, error.__context__)
    else:
        return
    with pytest.raises(InvalidCodeError) as other:
        validate_code("")
    assert said == (other.value.args, None, None)


@pytest.mark.parametrize(
    ("namespace", "code", "allowed"),
    [
        ("sales", "SALES-1", True),
        ("sales", "PROMO-1", True),
        ("sales", "OTHER-1", False),
        ("billing", "SALES-1", True),
        ("closed", "SALES-1", False),
        ("absent", "SALES-1", False),
    ],
)
def test_prefixes_limit_the_codes_of_each_namespace(namespace: str, code: str, allowed: bool) -> None:
    prefixes = {"sales": ("SALES-", "PROMO-"), "billing": ("",), "closed": ()}
    check_prefix(namespace, code, {})
    if allowed:
        check_prefix(namespace, code, prefixes)
        return
    with pytest.raises(CodeNotAllowedError) as refused:
        check_prefix(namespace, code, prefixes)
    assert code not in refused.value.message
    assert "billing" not in refused.value.message

"""Every rule of the Voucher's CRD: YAML that the API server accepts, and YAML that it refuses with what to write."""

from collections.abc import Iterator

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.crd_rules import Case, CrdValidator, cases, crd_validator, rules_without_case
from voucher_operator.resources.money import MINOR_DIGITS, parse_amount

GOOD = """
code: OMANTEL-MUSCAT-200
credit: {amount: 200, currency: OMR}
"""
SECRET = "codeFrom: {secretKeyRef: {name: muscat-code, key: code}}"
BY_SECRET = "code: null\n" + SECRET

CODE = (
    Case("code with blank", "code: A-1", "code: A 1", "write it in capitals and without blanks"),
    Case("code in lower case", "code: OMANTEL-2", "code: omantel-2", "write it in capitals"),
    Case("code with line feed", "code: OMANTEL", 'code: "OMANTEL\\n"', "write it in capitals"),
    Case("code too short", "code: A12", "code: A1", "must be 3 to 64 characters of A-Z, 0-9"),
    Case("code too long", f"code: {'A' * 64}", f"code: {'A' * 65}", "may not be more than 64"),
    Case("code a number", 'code: "2027"', "code: 2027", "spec.code in body must be of type string"),
    Case("code twice", BY_SECRET, SECRET, "must have exactly one of code and codeFrom: write code"),
    Case("code nowhere", "{}", "code: null", "must have exactly one of code and codeFrom: write code"),
    Case("codeFrom empty", BY_SECRET, "{code: null, codeFrom: {}}", "spec.codeFrom.secretKeyRef: Required value"),
    Case(
        "Secret without key",
        BY_SECRET,
        "{code: null, codeFrom: {secretKeyRef: {name: a}}}",
        "spec.codeFrom.secretKeyRef.key: Required value",
    ),
    Case(
        "Secret without name",
        BY_SECRET,
        "{code: null, codeFrom: {secretKeyRef: {key: a}}}",
        "spec.codeFrom.secretKeyRef.name: Required value",
    ),
    Case(
        "Secret's name",
        "{code: null, codeFrom: {secretKeyRef: {name: my.code-1, key: a}}}",
        "{code: null, codeFrom: {secretKeyRef: {name: My_Code, key: a}}}",
        "must be the name of a Secret: write lower-case letters",
    ),
    Case(
        "Secret's name too long",
        f"{{code: null, codeFrom: {{secretKeyRef: {{name: {'a' * 253}, key: a}}}}}}",
        f"{{code: null, codeFrom: {{secretKeyRef: {{name: {'a' * 254}, key: a}}}}}}",
        "may not be more than 253",
    ),
    Case(
        "Secret's key",
        "{code: null, codeFrom: {secretKeyRef: {name: a, key: The_code.txt}}}",
        "{code: null, codeFrom: {secretKeyRef: {name: a, key: the code}}}",
        "must be a key of a Secret: write letters",
    ),
    Case(
        "Secret's key too long",
        f"{{code: null, codeFrom: {{secretKeyRef: {{name: a, key: {'a' * 253}}}}}}}",
        f"{{code: null, codeFrom: {{secretKeyRef: {{name: a, key: {'a' * 254}}}}}}}",
        "may not be more than 253",
    ),
)

FORM = 'write 200 or "25.500", without sign, exponent, blanks, separators or leading zeros'
ZERO = "must be more than 0: write what one redemption gives"
DIGITS = 'has more decimals than the currency: write "25.500" at most for OMR'
LIMIT = "must be a decimal number of major units, at most 1000000000"
CREDIT = (
    Case("credit missing", "{}", "credit: null", "spec.credit: Required value"),
    Case("amount missing", "{}", "credit: {amount: null}", "spec.credit.amount: Required value"),
    Case("currency missing", "{}", "credit: {currency: null}", "spec.credit.currency: Required value"),
    Case("amount in words", 'credit: {amount: "25.500"}', "credit: {amount: many}", FORM),
    Case("amount a float", 'credit: {amount: "25.5"}', "credit: {amount: 25.5}", "must be of type integer,string"),
    Case("amount with plus", 'credit: {amount: "5"}', 'credit: {amount: "+5"}', FORM),
    Case("amount with minus", 'credit: {amount: "0.001"}', 'credit: {amount: "-5.5"}', FORM),
    Case("amount with exponent", 'credit: {amount: "1000"}', 'credit: {amount: "1e3"}', FORM),
    Case("amount with blank", 'credit: {amount: "25"}', 'credit: {amount: " 25"}', FORM),
    Case("amount with line feed", 'credit: {amount: "25"}', 'credit: {amount: "25\\n"}', FORM),
    Case("amount with separators", 'credit: {amount: "1000.5"}', 'credit: {amount: "1,000.5"}', FORM),
    Case("amount with leading zero", 'credit: {amount: "0.5"}', 'credit: {amount: "05"}', FORM),
    Case("amount without fraction", 'credit: {amount: "5"}', 'credit: {amount: "5."}', FORM),
    Case("amount empty", 'credit: {amount: "1"}', 'credit: {amount: ""}', FORM),
    Case("amount too long", f'credit: {{amount: "{"9" * 9}"}}', f'credit: {{amount: "{"9" * 21}"}}', "more than 20"),
    Case("amount zero", "credit: {amount: 1}", "credit: {amount: 0}", ZERO),
    Case("amount zero in words", 'credit: {amount: "0.001"}', 'credit: {amount: "0.000"}', ZERO),
    Case("amount negative", "credit: {amount: 1}", "credit: {amount: -1}", ZERO),
    Case("amount too big", "credit: {amount: 1000000000}", "credit: {amount: 1000000001}", LIMIT),
    Case("amount just too big", 'credit: {amount: "1000000000.000"}', 'credit: {amount: "1000000000.001"}', LIMIT),
    Case("baisa", 'credit: {amount: "25.500"}', 'credit: {amount: "25.5005"}', DIGITS),
    Case("cents", 'credit: {amount: "25.50", currency: USD}', 'credit: {amount: "25.500", currency: USD}', DIGITS),
    Case("yen", 'credit: {amount: "25", currency: JPY}', 'credit: {amount: "25.0", currency: JPY}', DIGITS),
    Case("UF", 'credit: {amount: "25.5001", currency: CLF}', 'credit: {amount: "25.50011", currency: CLF}', DIGITS),
    Case(
        "currency unknown",
        "credit: {currency: KWD}",
        "credit: {currency: XYZ}",
        "must be an active ISO 4217 currency in capitals: write the currency of your ledger, for example OMR",
    ),
    Case(
        "currency in lower case", "credit: {currency: OMR}", "credit: {currency: omr}", "ISO 4217 currency in capitals"
    ),
    Case("currency too long", "credit: {currency: EUR}", "credit: {currency: EURO}", "may not be more than 3"),
    Case("gold", "credit: {currency: CHF}", "credit: {currency: XAU}", "must be an active ISO 4217 currency"),
)

FROM = 'validFrom: "2026-12-01T00:00:00Z"\n'
UNTIL = 'validUntil: "9999-12-31T23:59:59Z"\n'
MOMENT = 'must be a date and time with a zone, from the year 2000 to 9999: write for example "{}'
NO_DAY = "is not in the calendar: this year has no 29 February"
TERMS = (
    Case("cap negative", "maxRedemptions: 0", "maxRedemptions: -1", "write 0 for no cap"),
    Case("cap too big", "maxRedemptions: 2147483647", "maxRedemptions: 2147483648", "must be between 0 and 2147483647"),
    Case("cap in words", "maxRedemptions: 5", 'maxRedemptions: "5"', "must be of type integer"),
    Case("active in words", "active: false", 'active: "no"', "must be of type boolean"),
    Case("description too long", f"description: {'é' * 256}", f"description: {'é' * 257}", "may not be more than 256"),
    Case(
        "description of two lines", "description: >-\n  a\n  b", "description: |\n  a\n  b", "write it on one line, or"
    ),
    Case(
        "description with NUL", "description: ''", 'description: "a\\0b"', "must be one line without control characters"
    ),
    Case(
        "window the wrong way round",
        FROM + 'validUntil: "2026-12-01T00:00:00Z"',
        FROM + 'validUntil: "2026-11-30T23:59:59Z"',
        "write a validUntil at or after validFrom",
    ),
    Case(
        "window with zones",
        FROM + 'validUntil: "2026-12-01T04:00:00+04:00"',
        FROM + 'validUntil: "2026-12-01T03:59:59+04:00"',
        "validUntil is before validFrom",
    ),
    Case("no zone", FROM, 'validFrom: "2026-12-01T00:00:00"', MOMENT.format("2026-12-01T00:00:00Z")),
    Case("no zone at the end", UNTIL, 'validUntil: "2026-12-01T00:00:00"', MOMENT.format("2027-01-31T23:59:59Z")),
    Case("a day", 'validUntil: "2026-12-01T00:00:00Z"', 'validUntil: "2026-12-01"', MOMENT.format("2027")[:-1]),
    Case("no such month", 'validUntil: "2028-12-01T00:00:00Z"', 'validUntil: "2028-13-01T00:00:00Z"', "date and time"),
    Case("31 April", 'validUntil: "2028-04-30T00:00:00Z"', 'validUntil: "2028-04-31T00:00:00Z"', "date and time"),
    Case("24 hours", 'validUntil: "2028-04-30T23:00:00Z"', 'validUntil: "2028-04-30T24:00:00Z"', "date and time"),
    Case("no such day", 'validUntil: "2028-02-29T00:00:00Z"', 'validUntil: "2027-02-29T00:00:00Z"', NO_DAY),
    Case("1900 rule", 'validFrom: "2400-02-29T00:00:00Z"', 'validFrom: "2100-02-29T00:00:00Z"', NO_DAY),
    Case("long ago", 'validUntil: "2000-01-01T00:00:00Z"', 'validUntil: "0000-01-01T00:00:00Z"', "year 2000 to 9999"),
    Case("far future", 'validUntil: "9999-12-31T23:59:59Z"', 'validUntil: "10000-01-01T00:00:00Z"', "2000 to 9999"),
    Case(
        "far future elsewhere",
        'validUntil: "9999-12-31T23:59:59+04:00"',
        'validUntil: "9999-12-31T23:59:59-04:00"',
        'must not be after the year 9999 in UTC: write "9999-12-31T23:59:59Z"',
    ),
    Case("unknown field", "{}", "maxRedemption: 5", 'unknown field "spec.maxRedemption"'),
)

EDITED = """
active: false
description: after
maxRedemptions: 1
credit: {amount: "3.5"}
validFrom: null
validUntil: "2027-01-31T23:59:59Z"
"""
IMMUTABLE = (
    Case(
        "code changed",
        "active: false",
        "code: OTHER",
        "code is immutable: put the old value back and create another",
        "{}",
    ),
    Case("code moved to a Secret", "{}", BY_SECRET, "code is immutable: put the old value back", "{}"),
    Case("Secret moved to Git", BY_SECRET, "{}", "codeFrom cannot be replaced by code", BY_SECRET),
    Case(
        "another Secret and key",
        BY_SECRET.replace("muscat-code", "muscat-code-7t2h").replace("key: code", "key: other"),
        "{}",
        "put it back, with any Secret that has the code",
        BY_SECRET,
    ),
    Case(
        "currency changed",
        'credit: {amount: "7.5"}',
        "credit: {currency: USD}",
        "currency is immutable: put the old value back and create another Voucher",
        "{}",
    ),
    Case(
        "all the rest changed",
        EDITED,
        EDITED + "code: OTHER",
        "code is immutable: put the old value back",
        "{active: true, description: before, maxRedemptions: 9, validFrom: '2026-01-01T00:00:00Z'}",
    ),
)


@pytest.fixture(scope="module")
def vouchers(control_plane: ControlPlane) -> Iterator[CrdValidator]:
    with crd_validator(control_plane, "Voucher", "crd-voucher", GOOD) as validator:
        yield validator


@cases(*CODE, *CREDIT, *TERMS, *IMMUTABLE)
def test_good_is_accepted_and_bad_is_refused_with_what_to_write(vouchers: CrdValidator, case: Case) -> None:
    vouchers.check(case)


def test_every_rule_has_a_case() -> None:
    assert rules_without_case("Voucher", *CODE, *CREDIT, *TERMS, *IMMUTABLE) == []


AMOUNTS = ["1", "0", "0.0", "00", "1.", ".5", "1.0", "1.00", "1.000", "1.0000", "1.00000", "999999999.9", "1000000000"]
AMOUNTS += [
    "1000000000.0",
    "1000000000.1",
    "1000000001",
    "10000000000",
    "1e3",
    "-1",
    "+1",
    " 1",
    "1\n",
    "1,5",
    "\u0661",
    "",
]


@pytest.mark.parametrize("currency", sorted({"JPY", "USD", "OMR", "CLF"}))
@pytest.mark.parametrize("amount", [*AMOUNTS, 1, 0, -1, 1_000_000_000, 1_000_000_001], ids=repr)
def test_schema_and_operator_agree_on_amounts(vouchers: CrdValidator, amount: int | str, currency: str) -> None:
    try:
        parse_amount(amount, currency)
        parsed = True
    except ValueError:
        parsed = False
    spec = vouchers.spec | {"credit": {"amount": amount, "currency": currency}}
    assert (vouchers.created(spec) == "") is parsed


def test_schema_and_operator_agree_on_currencies(vouchers: CrdValidator) -> None:
    for currency, digits in MINOR_DIGITS.items():
        credit = {"currency": currency, "amount": f"1.{'0' * digits}" if digits else "1"}
        assert vouchers.created(vouchers.spec | {"credit": credit}) == ""
        credit["amount"] = f"1.{'0' * (digits + 1)}"
        assert vouchers.created(vouchers.spec | {"credit": credit}) != ""
    for currency in ("XAU", "XTS", "XXX", "BGN", "HRK", "DEM", "AAA"):
        assert "ISO 4217" in vouchers.created(vouchers.spec | {"credit": {"amount": 1, "currency": currency}})

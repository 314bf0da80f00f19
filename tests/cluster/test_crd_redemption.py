"""Every rule of the Redemption's CRD: YAML that the API server accepts, and YAML that it refuses with what to write."""

from collections.abc import Iterator

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.crd_rules import Case, CrdValidator, cases, crd_validator, rules_without_case
from tests.cluster.test_crd_order import ORDER

GOOD = """
code: OMANTEL-MUSCAT-200
customer: {userID: u-1, tenantID: kestrel-pharmacy, email: ahmed@example.com}
"""
SECRET = "codeFrom: {secretKeyRef: {name: muscat-code, key: code}}\n"
BY_SECRET = "code: null\n" + SECRET
VOUCHER = "voucherRef: {name: muscat-200}\n"
BY_VOUCHER = "code: null\n" + VOUCHER


def secret(name: str, key: str) -> str:
    """Name another Secret."""
    return f"{{code: null, codeFrom: {{secretKeyRef: {{name: {name}, key: {key}}}}}}}"


ONE = "must have exactly one of code, codeFrom and voucherRef: write code for a code as the customer typed it"
SOURCE = (
    Case("code with blank", "code: omantel-1", "code: omantel 1", "write the code without blanks, for example"),
    Case("code with line feed", "code: Omantel", 'code: "Omantel\\n"', "write the code without blanks"),
    Case("code not ASCII", "code: OMANTEL", "code: ÖMANTEL", "must be 3 to 64 characters of letters, digits"),
    Case("code too short", "code: a12", "code: a1", "must be 3 to 64 characters of letters, digits"),
    Case("code too long", f"code: {'a' * 64}", f"code: {'a' * 65}", "may not be more than 64"),
    Case("code nowhere", "{}", "code: null", ONE),
    Case("code and Secret", BY_SECRET, SECRET, ONE),
    Case("code and Voucher", BY_VOUCHER, VOUCHER, ONE),
    Case("Secret and Voucher", BY_VOUCHER, BY_SECRET + VOUCHER, ONE),
    Case("all three", "{}", SECRET + VOUCHER, ONE),
    Case("codeFrom empty", BY_SECRET, "{code: null, codeFrom: {}}", "spec.codeFrom.secretKeyRef: Required value"),
    Case("Secret's name", secret("my.code-1", "a"), secret("My_Code", "a"), "must be the name of a Secret: write"),
    Case("Secret's name long", secret("a" * 253, "a"), secret("a" * 254, "a"), "may not be more than 253"),
    Case("Secret's key", secret("a", "The_code.txt"), secret("a", "the code"), "must be a key of a Secret: write"),
    Case("Secret's key long", secret("a", "a" * 253), secret("a", "a" * 254), "may not be more than 253"),
    Case("voucherRef empty", BY_VOUCHER, "{code: null, voucherRef: {}}", "spec.voucherRef.name: Required value"),
    Case(
        "Voucher's name",
        BY_VOUCHER,
        "{code: null, voucherRef: {name: Muscat 200}}",
        "must be the name of a Voucher: write lower-case letters",
    ),
    Case(
        "Voucher's name long",
        f"{{code: null, voucherRef: {{name: {'a' * 253}}}}}",
        f"{{code: null, voucherRef: {{name: {'a' * 254}}}}}",
        "may not be more than 253",
    ),
    Case(
        "Voucher elsewhere",
        BY_VOUCHER,
        "{code: null, voucherRef: {name: muscat-200, namespace: billing}}",
        'unknown field "spec.voucherRef.namespace"',
    ),
)

BLANK = "without blanks around it and without control characters"
MAIL = "write it as name@domain, without blanks"
CUSTOMER = (
    Case("customer missing", "{}", "customer: null", "spec.customer: Required value"),
    Case("userID missing", "{}", "customer: {userID: null}", "spec.customer.userID: Required value"),
    Case("tenantID missing", "{}", "customer: {tenantID: null}", "spec.customer.tenantID: Required value"),
    Case("email missing", "{}", "customer: {email: null}", "spec.customer.email: Required value"),
    Case("userID empty", "customer: {userID: u}", 'customer: {userID: ""}', "write the user's ID without blanks"),
    Case("userID blank", "customer: {userID: a b}", 'customer: {userID: " "}', "write the user's ID " + BLANK),
    Case("userID padded", "customer: {userID: ab}", 'customer: {userID: "ab "}', BLANK),
    Case("userID with NUL", "customer: {userID: ä}", 'customer: {userID: "a\\0b"}', BLANK),
    Case("userID with line feed", "customer: {userID: ab}", 'customer: {userID: "ab\\n"}', BLANK),
    Case("userID long", f"customer: {{userID: {'é' * 256}}}", f"customer: {{userID: {'é' * 257}}}", "more than 256"),
    Case("tenantID empty", "customer: {tenantID: t}", 'customer: {tenantID: ""}', "write the Organization's ID"),
    Case("tenantID blank", "customer: {tenantID: a b}", 'customer: {tenantID: " "}', "Organization's ID " + BLANK),
    Case("tenantID long", f"customer: {{tenantID: {'a' * 253}}}", f"customer: {{tenantID: {'a' * 254}}}", "than 253"),
    Case("email without domain", "customer: {email: a@b}", "customer: {email: ahmed}", MAIL),
    Case("email with blank", "customer: {email: a.b+c@d.example}", 'customer: {email: "a b@c"}', MAIL),
    Case("email twice", "customer: {email: ä@ö.example}", "customer: {email: a@b@c}", MAIL),
    Case("email long", f"customer: {{email: a@{'b' * 252}}}", f"customer: {{email: a@{'b' * 253}}}", "more than 254"),
    Case("ttl negative", "ttlSecondsAfterFinished: 0", "ttlSecondsAfterFinished: -1", "write 0 to delete it at once"),
    Case(
        "ttl too big",
        "ttlSecondsAfterFinished: 2147483647",
        "ttlSecondsAfterFinished: 2147483648",
        "must be between 0 and 2147483647 seconds",
    ),
)

FIXED = "spec is immutable: put the old values back, and create another Redemption under another name"
IMMUTABLE = (
    Case("code changed", "{}", "code: OTHER", FIXED, "{}"),
    Case("source changed", BY_SECRET, BY_VOUCHER, FIXED, BY_SECRET),
    Case("customer changed", "{}", "customer: {userID: u-2}", FIXED, "{}"),
    Case("ttl added", "{}", "ttlSecondsAfterFinished: 5", FIXED, "{}"),
    Case("ttl removed", "ttlSecondsAfterFinished: 5", "{}", FIXED, "ttlSecondsAfterFinished: 5"),
)


@pytest.fixture(scope="module")
def redemptions(control_plane: ControlPlane) -> Iterator[CrdValidator]:
    with crd_validator(control_plane, "Redemption", "crd-redemption", GOOD) as validator:
        yield validator


@cases(*SOURCE, *CUSTOMER, *IMMUTABLE)
def test_good_is_accepted_and_bad_is_refused_with_what_to_write(redemptions: CrdValidator, case: Case) -> None:
    redemptions.check(case)


def test_every_rule_has_a_case() -> None:
    assert rules_without_case("Redemption", *SOURCE, *CUSTOMER, *IMMUTABLE, *ORDER) == []

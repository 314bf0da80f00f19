"""Every rule of a Redemption's order: YAML that the API server accepts, and YAML that it refuses with what to write."""

from collections.abc import Iterator

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.crd_rules import Case, CrdValidator, cases, crd_validator

GOOD = """
code: OMANTEL-MUSCAT-200
customer: {userID: u-1, tenantID: kestrel-pharmacy, email: ahmed@example.com}
order: {planID: m, apps: [wordpress], addons: [waf]}
"""
MOST = "must have at most one of code, codeFrom and voucherRef: keep the one"
SLUG = "must be 3 to 31 lower-case letters, digits and"
TENANT = "customer.tenantID cannot be a subdomain: write order.subdomain"
OWN = "which are the platform's own: write another name"
SECONDS = "must be between 1 and 43200 seconds"
FIXED = "spec is immutable: put the old values back"


def many(field: str, number: int) -> str:
    """Write a list of so many IDs."""
    return f"order: {{{field}: [{', '.join(f'i{n}' for n in range(number))}]}}"


def subdomain(name: str) -> str:
    """Ask for a subdomain, quoted: some would be no text in YAML."""
    return f'order: {{subdomain: "{name}"}}'


def tenant(name: str, more: str = "") -> str:
    """Buy for another tenant."""
    return f"{{customer: {{tenantID: {name}}}{more}}}"


ORDER = (
    Case("no code with an order", "code: null", "{code: null, order: null}", "must have exactly one of code, codeFrom"),
    Case("two codes", "{code: null, voucherRef: {name: a}}", "voucherRef: {name: a}", MOST),
    Case("plan missing", "{}", "order: {planID: null}", "spec.order.planID: Required value"),
    Case("plan's ID", "order: {planID: M_1.a-b}", "order: {planID: a b}", "must be the ID of a plan: write"),
    Case("plan's ID long", f"order: {{planID: {'a' * 64}}}", f"order: {{planID: {'a' * 65}}}", "more than 64"),
    Case("app's ID", "order: {apps: [a]}", 'order: {apps: ["a/b"]}', "must be the ID of an app: write"),
    Case("app twice", "order: {apps: [a, b]}", "order: {apps: [a, a]}", "must name each app once: leave"),
    Case("many apps", many("apps", 50), many("apps", 51), "must have at most 50 items"),
    Case("add-on's ID", "order: {addons: [a]}", 'order: {addons: [""]}', "must be the ID of an add-on: write"),
    Case("add-on twice", "order: {addons: [a, b]}", "order: {addons: [b, a, b]}", "must name each add-on once: leave"),
    Case("many add-ons", many("addons", 50), many("addons", 51), "must have at most 50 items"),
    Case("subdomain short", subdomain("abc"), subdomain("ab"), SLUG),
    Case("subdomain long", subdomain("a" * 31), subdomain("a" * 32), "may not be more than 31"),
    Case("subdomain's letters", subdomain("a1-b"), subdomain("A1-b"), SLUG),
    Case("subdomain's begin", subdomain("a1b"), subdomain("1ab"), SLUG),
    Case("subdomain's end", subdomain("a-b"), subdomain("ab-"), SLUG),
    *(Case(f"subdomain {name}", subdomain(f"{name}1"), subdomain(name), OWN) for name in ("system", "flux", "gitea")),
    *(Case(f"subdomain {name}", subdomain(f"{name}1"), subdomain(name), OWN) for name in ("crossplane", "catalyst")),
    Case("subdomain kube-", subdomain("kube"), subdomain("kube-a"), OWN),
    Case("tenant as subdomain", tenant("No Slug", ", order: {subdomain: abc}"), tenant("No Slug"), TENANT),
    Case("tenant reserved", tenant("flux", ", order: {subdomain: abc}"), tenant("flux"), TENANT),
    Case("tenant kube-", tenant("kubes"), tenant("kube-s"), TENANT),
    Case("tenant without an order", tenant("flux", ", order: null"), tenant("flux"), TENANT),
    Case("deadline short", "order: {paymentDeadlineSeconds: 1}", "order: {paymentDeadlineSeconds: 0}", SECONDS),
    Case("deadline long", "order: {paymentDeadlineSeconds: 43200}", "order: {paymentDeadlineSeconds: 43201}", SECONDS),
    Case("price", "{}", "order: {price: 1}", 'unknown field "spec.order.price"'),
    Case("order changed", "{}", "order: {planID: l}", FIXED, "{}"),
    Case("order added", "order: null", "{}", FIXED, "order: null"),
)


@pytest.fixture(scope="module")
def redemptions(control_plane: ControlPlane) -> Iterator[CrdValidator]:
    with crd_validator(control_plane, "Redemption", "crd-order", GOOD) as validator:
        yield validator


@cases(*ORDER)
def test_good_is_accepted_and_bad_is_refused_with_what_to_write(redemptions: CrdValidator, case: Case) -> None:
    redemptions.check(case)


def test_lists_are_empty_unless_given(redemptions: CrdValidator) -> None:
    assert redemptions.create("order: {apps: null, addons: null}")["spec"]["order"] == {
        "planID": "m",
        "apps": [],
        "addons": [],
    }

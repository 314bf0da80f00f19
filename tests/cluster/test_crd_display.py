"""What people and selectors see of the CRDs: columns, `kubectl explain`, defaults, field selectors, status."""

import json
import re
from collections.abc import Iterator

import pytest

from testbed.control_plane import ControlPlane
from testbed.processes import wait_until
from tests.cluster.crd_rules import CrdValidator, Object, crd_validator, schema

VOUCHER = """
code: OMANTEL-MUSCAT-200
credit: {amount: 200, currency: OMR}
"""
REDEMPTION = """
code: OMANTEL-MUSCAT-200
customer: {userID: u-1, tenantID: kestrel-pharmacy, email: ahmed@example.com}
"""
SECRET = "{code: null, codeFrom: {secretKeyRef: {name: a, key: b}}}"


def ready(status: str, reason: str, message: str) -> Object:
    """Build a condition Ready."""
    time = "2026-12-01T00:00:00Z"
    return {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": time}


@pytest.fixture(scope="module")
def vouchers(control_plane: ControlPlane) -> Iterator[CrdValidator]:
    with crd_validator(control_plane, "Voucher", "crd-voucher-display", VOUCHER) as validator:
        yield validator


@pytest.fixture(scope="module")
def redemptions(control_plane: ControlPlane) -> Iterator[CrdValidator]:
    with crd_validator(control_plane, "Redemption", "crd-redemption-display", REDEMPTION) as validator:
        yield validator


@pytest.fixture(params=["Voucher", "Redemption"])
def either(request: pytest.FixtureRequest, vouchers: CrdValidator, redemptions: CrdValidator) -> CrdValidator:
    return vouchers if request.param == "Voucher" else redemptions


def table(control_plane: ControlPlane, validator: CrdValidator, made: Object, *options: str) -> dict[str, str]:
    """Return what `kubectl get` prints of one object, by column."""
    kind, name = validator.kind.lower(), made["metadata"]["name"]
    head, row = control_plane.kubectl("get", kind, name, "-n", validator.namespace, *options).splitlines()
    starts = [title.start() for title in re.finditer(r"\S+", head)]
    ends = [*starts[1:], len(row)]
    return {title: row[start:end].strip() for title, start, end in zip(head.split(), starts, ends, strict=True)}


def test_voucher_columns_show_status(control_plane: ControlPlane, vouchers: CrdValidator) -> None:
    made = vouchers.create('{description: Muscat launch, maxRedemptions: 50, validUntil: "2027-01-31T23:59:59Z"}')
    status = {"credit": "200.000 OMR", "redeemed": "12/50", "state": "Active"}
    vouchers.set_status(made, status | {"conditions": [ready("True", "Issued", "In the ledger.")]})
    shown = table(control_plane, vouchers, made)
    assert list(shown) == ["NAME", "CODE", "CREDIT", "REDEEMED", "STATE", "READY", "AGE"]
    assert list(shown.values())[1:-1] == ["OMANTEL-MUSCAT-200", "200.000 OMR", "12/50", "Active", "True"]
    wide = table(control_plane, vouchers, made, "-o", "wide")
    assert list(wide) == [*list(shown)[:-1], "UNTIL", "DESCRIPTION", "MESSAGE", "AGE"]
    assert list(wide.values())[-4:-1] == ["2027-01-31T23:59:59Z", "Muscat launch", "In the ledger."]


def test_code_of_a_secret_is_not_shown(control_plane: ControlPlane, vouchers: CrdValidator) -> None:
    assert table(control_plane, vouchers, vouchers.create(SECRET), "-o", "wide")["CODE"] == ""


def test_redemption_columns_show_status(control_plane: ControlPlane, redemptions: CrdValidator) -> None:
    made = redemptions.create()
    status = {"credit": "200.000 OMR", "state": "Redeemed"}
    redemptions.set_status(made, status | {"conditions": [ready("True", "Redeemed", "Credit given.")]})
    shown = table(control_plane, redemptions, made)
    assert list(shown) == ["NAME", "STATE", "CREDIT", "CUSTOMER", "REASON", "AGE"]
    assert list(shown.values())[1:-1] == ["Redeemed", "200.000 OMR", "u-1", "Redeemed"]
    wide = table(control_plane, redemptions, made, "-o", "wide")
    assert list(wide) == [*list(shown)[:-1], "MESSAGE", "AGE"]
    assert wide["MESSAGE"] == "Credit given."


@pytest.mark.parametrize("name", ["vch", "voucher", "vouchers"])
def test_voucher_names_and_short_names_are_served(
    control_plane: ControlPlane, vouchers: CrdValidator, name: str
) -> None:
    made = vouchers.create()["metadata"]["name"]
    assert f"voucher.billing.openova.io/{made}" in control_plane.kubectl("get", name, "-A", "-o", "name")


@pytest.mark.parametrize("name", ["rdm", "redemption", "redemptions"])
def test_redemption_names_and_short_names_are_served(
    control_plane: ControlPlane, redemptions: CrdValidator, name: str
) -> None:
    made = redemptions.create()["metadata"]["name"]
    assert f"redemption.billing.openova.io/{made}" in control_plane.kubectl("get", name, "-A", "-o", "name")


@pytest.mark.parametrize("category", ["catalyst", "openova"])
def test_categories_list_both_kinds(vouchers: CrdValidator, redemptions: CrdValidator, category: str) -> None:
    # Asked of the API server: kubectl expands a category from its cache, which may be older than the second CRD.
    assert category in vouchers.discovery()["categories"]
    assert category in redemptions.discovery()["categories"]


def test_refusal_message_says_what_to_write(control_plane: ControlPlane, vouchers: CrdValidator) -> None:
    spec = {"code": "omantel", "credit": {"amount": "25.5005", "currency": "OMR"}}
    body = {"apiVersion": "billing.openova.io/v1alpha1", "kind": "Voucher", "metadata": {"name": "bad"}, "spec": spec}
    arguments = ("apply", "--server-side", "--dry-run=server", "-n", vouchers.namespace, "-f", "-")
    said = control_plane.kubectl(*arguments, input=json.dumps(body), check=False)
    assert "write it in capitals and without blanks, for example OMANTEL-MUSCAT-200" in said
    assert 'write "25.500" at most for OMR' in said


def test_voucher_defaults(vouchers: CrdValidator) -> None:
    made = vouchers.create()
    assert made["spec"] == vouchers.spec | {"active": True, "maxRedemptions": 0, "description": ""}


def test_redemption_has_no_defaults(redemptions: CrdValidator) -> None:
    assert redemptions.create()["spec"] == redemptions.spec


def test_new_object_is_in_progress_for_kstatus(either: CrdValidator) -> None:
    assert either.create()["status"] == {"observedGeneration": -1}


def test_status_of_the_framework_is_kept(either: CrdValidator) -> None:
    notes = {"progress": {"handler": {"retries": 3}}, "dummy": "2026-12-01T00:00:00"}
    assert either.set_status(either.create(), {"kopf": notes})["status"]["kopf"] == notes


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"observedGeneration": -2}, "status.observedGeneration"),
        ({"state": "Great"}, 'Unsupported value: "Great"'),
        ({"credit": "1" * 33}, "may not be more than 32"),
        ({"conditions": [ready("Maybe", "Issued", "")]}, 'Unsupported value: "Maybe"'),
        ({"conditions": [ready("True", "two words", "")]}, "should match"),
        ({"conditions": [ready("True", "Issued", "a" * 32769)]}, "may not be more than 32768"),
        ({"conditions": [ready("True", "Issued", ""), ready("False", "Issued", "")]}, "Duplicate value"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, "Required value"),
        ({"conditions": [ready("True", "A", "") | {"type": f"T{n}"} for n in range(33)]}, "must have at most 32 items"),
        ({"surprise": "o-1"}, 'unknown field "status.surprise"'),
    ],
)
def test_bad_status_is_refused(either: CrdValidator, status: Object, says: str) -> None:
    assert says in either.status_refusal(either.create(), status)


def test_finished_redemptions_can_be_excluded_by_selector(redemptions: CrdValidator) -> None:
    new, done, kept = redemptions.create(), redemptions.create("ttlSecondsAfterFinished: 0"), redemptions.create()
    redemptions.set_status(done, {"finished": True})
    redemptions.set_status(kept, {"finished": True})
    name = {"new": new["metadata"]["name"], "done": done["metadata"]["name"], "kept": kept["metadata"]["name"]}
    unfinished = redemptions.names("status.finished!=true")
    assert name["new"] in unfinished
    assert not unfinished & {name["done"], name["kept"]}
    to_delete = redemptions.names("status.finished=true,spec.ttlSecondsAfterFinished!=")
    assert to_delete == {name["done"]}


@pytest.mark.parametrize(
    ("patch", "selector"),
    [
        ("customer: {userID: u-select}", "spec.customer.userID=u-select"),
        ("{code: null, voucherRef: {name: selected}}", "spec.voucherRef.name=selected"),
    ],
)
def test_redemptions_are_selectable_by_spec(redemptions: CrdValidator, patch: str, selector: str) -> None:
    made = redemptions.create(patch)
    assert redemptions.names(selector) == {made["metadata"]["name"]}


def test_redemptions_are_selectable_by_state(redemptions: CrdValidator) -> None:
    made = redemptions.create()
    redemptions.set_status(made, {"state": "RolledBack"})
    assert redemptions.names("status.state=RolledBack") == {made["metadata"]["name"]}


def test_vouchers_are_selectable_by_code_and_state(vouchers: CrdValidator) -> None:
    made = vouchers.create("code: SELECT-ME")
    vouchers.set_status(made, {"state": "Conflict"})
    assert vouchers.names("spec.code=SELECT-ME") == {made["metadata"]["name"]}
    assert vouchers.names("status.state=Conflict") == {made["metadata"]["name"]}


@pytest.fixture(scope="module")
def published(control_plane: ControlPlane) -> None:
    """The document that kubectl explains from comes a moment after the CRDs."""

    def both() -> bool:
        document = control_plane.kubectl("get", "--raw=/openapi/v3/apis/billing.openova.io/v1alpha1", check=False)
        return all(f'"kind":"{kind}"' in document for kind in ("Voucher", "Redemption"))

    wait_until(both, "schemas of both kinds")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("voucher", "prepaid credit code"),
        ("voucher.spec", "The code and credit.currency are immutable"),
        ("voucher.spec.credit.amount", 'in quotes ("25.500")'),
        ("voucher.status.conditions", "docs/voucher.md explains every reason"),
        ("redemption.spec.customer", "A customer can redeem a code once"),
        ("redemption.status.finished", "true when nothing is left to do"),
    ],
)
def test_kubectl_explain_shows_descriptions(control_plane: ControlPlane, path: str, says: str) -> None:
    explained = " ".join(control_plane.kubectl("explain", path).split())
    assert says in explained
    assert "<no description>" not in explained


def nodes(node: Object, path: str) -> Iterator[tuple[str, Object]]:
    """Yield every schema node below with its path."""
    for name, child in node.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


@pytest.mark.parametrize("kind", ["Voucher", "Redemption"])
def test_every_field_is_described_and_bounded(kind: str) -> None:
    for path, node in nodes(schema(kind), kind):
        if path == f"{kind}.metadata":
            continue
        assert len(node["description"]) > 5, path
        if path.count(".") > 1 and node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, path
        if node.get("type") == "integer":
            assert "minimum" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path


@pytest.mark.parametrize("kind", ["Voucher", "Redemption"])
def test_every_pattern_of_a_spec_has_a_sentence(kind: str) -> None:
    """A regular expression alone does not say what to write."""
    patterns = {path: node for path, node in nodes(schema(kind), kind) if ".spec" in path and "pattern" in node}
    assert patterns
    for path, node in patterns.items():
        assert any("write" in rule["message"] for rule in node.get("x-kubernetes-validations", ())), path

"""The models say what the CRDs say, field by field; and what they do on top of it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from voucher_operator.resources.base import Resource, Status
from voucher_operator.resources.conditions import MAX_MESSAGE, Condition, merge
from voucher_operator.resources.conditions import VOUCHER_CONDITIONS as OWNED
from voucher_operator.resources.reasons import Reason
from voucher_operator.resources.redemption import Redemption, RedemptionSpec, RedemptionStatus
from voucher_operator.resources.redemption import State as RedemptionState
from voucher_operator.resources.voucher import State, Voucher, VoucherSpec, VoucherStatus

CRDS = Path(__file__).resolve().parent.parent.parent / "crds"
Schema = dict[str, Any]

METADATA = {
    "namespace": "billing",
    "name": "muscat-200",
    "uid": "u-1",
    "generation": 3,
    "creationTimestamp": "2026-12-01T00:00:00Z",
    "labels": {"a": "b"},
}
VOUCHER = {"code": "OMANTEL-MUSCAT-200", "credit": {"amount": "25.500", "currency": "OMR"}}
REDEMPTION: Schema = {"code": "omantel", "customer": {"userID": "u-1", "tenantID": "kestrel", "email": "a@b.example"}}
KEYWORDS = ("type", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems", "default")


def crd(kind: str, part: str) -> Schema:
    document = yaml.safe_load((CRDS / f"{kind}s.billing.openova.io.yaml").read_text())
    found: Schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    return found


def of_model(model: type[BaseModel]) -> Schema:
    """Return the model's schema in the CRD's manner: no references, no nulls."""
    whole = model.model_json_schema(by_alias=True)
    plain = _plain(whole, whole.get("$defs", {}))
    assert isinstance(plain, dict)
    return plain


def _plain(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_plain(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    node = {**definitions[node["$ref"].rsplit("/", 1)[1]], **node} if "$ref" in node else node
    options = [one for one in node.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        node = {**options[0], **{key: value for key, value in node.items() if key not in ("anyOf", "default")}}
        return _plain(node, definitions)
    if options:
        # int-or-string: the bounds of the integer and those of the string stand side by side.
        node = {key: value for option in options for key, value in option.items()} | {"type": "int-or-string"}
    return {key: _plain(value, definitions) for key, value in node.items() if key not in ("$defs", "title")}


def fields(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield path and comparable keywords of every field."""
    for name, child in node.get("properties", {}).items():
        kept = {key: child[key] for key in KEYWORDS if key in child}
        if child.get("x-kubernetes-int-or-string"):
            kept["type"] = "int-or-string"
        if child["type" if "type" in child else "x-kubernetes-int-or-string"] in ("integer", True):
            kept.pop("format", None)
        if child.get("format") == "date-time" or path + name in ("validFrom", "validUntil"):
            # The API server takes times as text, the model as times: only one of them can bound their spelling. Those
            # of a spec have no format in the CRD, so that CEL sees their text and can say what to write.
            kept = {"type": "string", "format": "date-time"}
        yield f"{path}.{name}", kept | {"required": name in node.get("required", ())}
        yield from fields(child, f"{path}.{name}")
        if child.get("items", {}).get("type") == "string":
            yield from fields({"properties": {"items": child["items"]}}, f"{path}.{name}")


def without(listed: Iterator[tuple[str, Schema]], *skipped: str) -> Schema:
    return {path: node for path, node in listed if path not in skipped}


@pytest.mark.parametrize(("kind", "model"), [("voucher", VoucherSpec), ("redemption", RedemptionSpec)])
def test_spec_model_equals_the_crd(kind: str, model: type[BaseModel]) -> None:
    assert dict(fields(of_model(model))) == dict(fields(crd(kind, "spec")))


@pytest.mark.parametrize(("kind", "model"), [("voucher", VoucherStatus), ("redemption", RedemptionStatus)])
def test_status_model_equals_the_crd(kind: str, model: type[BaseModel]) -> None:
    ours, theirs = of_model(model), crd(kind, "status")
    # The operator always writes these two; the schema cannot ask for them, for others may write a status too.
    assert ours.pop("required") == ["observedGeneration", "conditions"]
    assert without(fields(ours)) == without(fields(theirs), ".kopf")


@pytest.mark.parametrize("kind", ["voucher", "redemption"])
def test_condition_model_equals_the_crd(kind: str) -> None:
    item = crd(kind, "status")["properties"]["conditions"]["items"]
    wanted = Condition("Ready", "True", Reason.ISSUED, "", 1)
    (written,) = merge([], [wanted], owned=OWNED, now=datetime.now(UTC))
    assert set(written) == set(item["properties"])
    assert item["properties"]["message"]["maxLength"] >= MAX_MESSAGE
    assert max(len(reason) for reason in Reason) <= item["properties"]["reason"]["maxLength"]


def body(spec: Schema, status: Schema | None = None, **metadata: Any) -> Schema:
    made = {"apiVersion": "billing.openova.io/v1alpha1", "metadata": METADATA | metadata, "spec": spec}
    return made if status is None else made | {"status": status}


def test_voucher_is_read_with_defaults() -> None:
    voucher = Voucher.from_body(body(VOUCHER | {"validFrom": "2026-12-01T04:00:00+04:00"}))
    assert (voucher.key, voucher.credit_minor, voucher.from_secret, voucher.deleted) == (
        "billing/muscat-200",
        25_500,
        False,
        False,
    )
    assert voucher.spec.valid_from == datetime(2026, 12, 1, tzinfo=UTC)
    assert (voucher.spec.active, voucher.spec.max_redemptions, voucher.spec.description) == (True, 0, "")


def test_voucher_with_a_secret_reference_is_read() -> None:
    spec = {"codeFrom": {"secretKeyRef": {"name": "s", "key": "code"}}, "credit": {"amount": 200, "currency": "OMR"}}
    voucher = Voucher.from_body(body(spec, deletionTimestamp="2026-12-02T00:00:00Z"))
    assert (voucher.credit_minor, voucher.from_secret, voucher.deleted) == (200_000, True, True)
    assert voucher.spec.code_from is not None
    assert voucher.spec.code_from.secret_key_ref.key == "code"


@pytest.mark.parametrize(
    "patch",
    [
        {"code": "lower"},
        {"code": None},
        {"codeFrom": {"secretKeyRef": {"name": "s", "key": "code"}}},
        {"credit": {"amount": "1.2345", "currency": "OMR"}},
        {"credit": {"amount": 1.5, "currency": "OMR"}},
        {"credit": {"amount": True, "currency": "OMR"}},
        {"credit": {"amount": 1, "currency": "XYZ"}},
        {"validFrom": "2026-12-02T00:00:00Z", "validUntil": "2026-12-01T00:00:00Z"},
        {"validFrom": "2026-12-02T00:00:00"},
        {"ofALaterVersion": 1},
    ],
)
def test_invalid_voucher_is_refused_without_its_values(patch: Schema) -> None:
    with pytest.raises(ValidationError) as caught:
        Voucher.from_body(body(VOUCHER | patch))
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("patch", [{"code": None}, {"voucherRef": {"name": "a"}}, {"orders": {"planID": "m"}}])
def test_invalid_redemption_is_refused(patch: Schema) -> None:
    with pytest.raises(ValidationError):
        Redemption.from_body(body(REDEMPTION | patch))


def test_order_is_read_with_defaults() -> None:
    spec = Redemption.from_body(body(REDEMPTION | {"order": {"planID": "m"}})).spec
    assert (spec.subdomain, spec.has_code) == ("kestrel", True)
    order = {"planID": "m", "addons": ["waf"], "subdomain": "falcon"}
    spec = Redemption.from_body(body({"customer": REDEMPTION["customer"], "order": order})).spec
    assert spec.order is not None
    assert (spec.subdomain, spec.has_code, spec.order.addons, spec.order.apps) == ("falcon", False, ("waf",), ())


@pytest.mark.parametrize(
    "patch",
    [
        {"order": {}},
        {"order": {"planID": "m", "apps": ["a", "a"]}},
        {"order": {"planID": "m", "addons": ["a", "a"]}},
        {"order": {"planID": "m", "subdomain": "ends-"}},
        {"order": {"planID": "m", "subdomain": "gitea"}},
        {"order": {"planID": "m", "subdomain": "kube-x"}},
        {"order": {"planID": "m"}, "customer": REDEMPTION["customer"] | {"tenantID": "No Slug"}},
        {"order": {"planID": "m"}, "customer": REDEMPTION["customer"] | {"tenantID": "flux"}},
        {"order": {"planID": "m"}, "voucherRef": {"name": "a"}},
    ],
)
def test_invalid_order_is_refused(patch: Schema) -> None:
    with pytest.raises(ValidationError):
        Redemption.from_body(body(REDEMPTION | patch))


@pytest.mark.parametrize(("model", "spec"), [(Voucher, VOUCHER), (Redemption, REDEMPTION)])
def test_any_status_is_read(model: type[Resource], spec: Schema) -> None:
    later = {"state": "OfALaterVersion", "orderID": 1, "conditions": [{"type": "Other"}]}
    assert model.from_body(body(spec, later)).status == later
    assert model.from_body(body(spec, later)).conditions == [{"type": "Other"}]
    assert model.from_body(body(spec)).conditions == []


def test_models_are_frozen() -> None:
    voucher = Voucher.from_body(body(VOUCHER))
    with pytest.raises(ValidationError):
        voucher.spec.active = False  # type: ignore[misc]


def test_request_hash_is_stable() -> None:
    # The ledger holds hashes for ever: this value must never change.
    assert (
        Redemption.from_body(body(REDEMPTION)).request_hash()
        == "dbc23dc60d9e643624c7bdf559325209b59f29fb91cfe33f5a86629de5cc91d5"
    )


def test_request_hash_ignores_name_uid_and_ttl() -> None:
    first = Redemption.from_body(body(REDEMPTION)).request_hash()
    again = dict(reversed(REDEMPTION.items())) | {"ttlSecondsAfterFinished": 5}
    assert Redemption.from_body(body(again, uid="u-2", name="other")).request_hash() == first


@pytest.mark.parametrize(
    "patch",
    [
        {"code": "OTHER"},
        {"code": None, "voucherRef": {"name": "omantel"}},
        {"customer": {"userID": "u-2", "tenantID": "kestrel", "email": "a@b.example"}},
        {"customer": {"userID": "u-1", "tenantID": "kestrel", "email": "c@b.example"}},
        {"order": {"planID": "m"}},
    ],
)
def test_request_hash_differs_for_each_field(patch: Schema) -> None:
    spec = {key: value for key, value in (REDEMPTION | patch).items() if value is not None}
    assert Redemption.from_body(body(spec)).request_hash() != Redemption.from_body(body(REDEMPTION)).request_hash()


def test_status_patch_removes_absent_fields() -> None:
    status = VoucherStatus(
        observed_generation=3,
        conditions=(),
        state=State.ACTIVE,
        credit="25.500 OMR",
        redeemed="12",
        times_redeemed=12,
        credit_granted="306.000",
        last_redemption_time=datetime(2026, 12, 1, 8, 30, 15, 5, tzinfo=UTC),
    )
    patch = status.to_patch()
    assert patch == {
        "observedGeneration": 3,
        "conditions": [],
        "state": "Active",
        "credit": "25.500 OMR",
        "redeemed": "12",
        "timesRedeemed": 12,
        "remaining": None,
        "creditGranted": "306.000",
        "lastRedemptionTime": "2026-12-01T08:30:15Z",
    }


def test_redemption_status_patch_has_all_fields() -> None:
    time = datetime(2026, 12, 1, tzinfo=UTC)
    status = RedemptionStatus(
        observed_generation=1, conditions=(), state=RedemptionState.REDEEMED, finished=True, finished_at=time
    )
    assert status.to_patch() == {
        "observedGeneration": 1,
        "conditions": [],
        "state": "Redeemed",
        "finished": True,
        "finishedAt": "2026-12-01T00:00:00Z",
        "credit": None,
        "redeemedAt": None,
        "orderID": None,
        "checkoutURL": None,
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"observedGeneration": -2, "conditions": []},
        {"observedGeneration": 1, "conditions": [], "credit": "1" * 33},
        {"observedGeneration": 1},
        {"conditions": []},
    ],
)
@pytest.mark.parametrize("model", [VoucherStatus, RedemptionStatus])
def test_invalid_status_is_refused(model: type[Status], bad: Schema) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(bad)

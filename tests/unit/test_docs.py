"""The pages of the two kinds name every field, condition, state and reason there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from voucher_operator.resources.conditions import REDEMPTION_CONDITIONS, VOUCHER_CONDITIONS
from voucher_operator.resources.errors import OperatorError
from voucher_operator.resources.reasons import Reason

ROOT = Path(__file__).resolve().parent.parent.parent
BOTH = {Reason.LEDGER_UNAVAILABLE, Reason.SECRET_NOT_FOUND, Reason.SECRET_UNREADABLE, Reason.INVALID_SPEC}
BOTH |= {Reason.REQUEST_REJECTED}
REASONS = {
    "voucher": BOTH
    | {
        Reason.ISSUED,
        Reason.CODE_CONFLICT,
        Reason.CURRENCY_MISMATCH,
        Reason.CODE_CHANGED,
        Reason.INVALID_CODE,
        Reason.ACTIVE,
        Reason.SCHEDULED,
        Reason.INACTIVE,
        Reason.EXHAUSTED,
        Reason.EXPIRED,
        Reason.NOT_ISSUED,
        Reason.REVOKED,
        Reason.DRIFT_CORRECTED,
    },
    "redemption": BOTH
    | {
        Reason.REDEEMED,
        Reason.ROLLED_BACK,
        Reason.CREDIT_SPENT,
        Reason.VOUCHER_NOT_READY,
        Reason.VOUCHER_NOT_FOUND,
        Reason.VOUCHER_INACTIVE,
        Reason.VOUCHER_NOT_YET_VALID,
        Reason.VOUCHER_EXPIRED,
        Reason.REDEMPTION_LIMIT_REACHED,
        Reason.ALREADY_REDEEMED,
        Reason.IDEMPOTENCY_CONFLICT,
        Reason.CURRENCY_MISMATCH,
        Reason.PLACED,
        Reason.AWAITING_PAYMENT,
        Reason.COMPLETED,
        Reason.CHECKOUT_EXPIRED,
        Reason.PAYMENT_FAILED,
        Reason.REFUNDED,
        Reason.INVALID_ORDER,
        Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED,
        Reason.PAYMENT_REJECTED,
        Reason.ABANDONED,
        Reason.PAYMENT_PROCESSOR_UNAVAILABLE,
        Reason.CATALOG_UNAVAILABLE,
        Reason.ORGANIZATION_CREATED,
        Reason.ORGANIZATION_NOT_READY,
        Reason.HANDED_OVER,
        Reason.ORGANIZATION_REFUSED,
    },
}
KINDS = pytest.mark.parametrize("kind", ["voucher", "redemption"])


def page(kind: str) -> str:
    return (ROOT / "docs" / f"{kind}.md").read_text()


def schema(kind: str) -> dict[str, Any]:
    crd = yaml.safe_load((ROOT / "crds" / f"{kind}s.billing.openova.io.yaml").read_text())
    properties: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {part: properties[part] for part in ("spec", "status")}


def paths(properties: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, node in properties.items():
        yield f"{prefix}{name}"
        yield from paths(node.get("properties", {}), f"{prefix}{name}.")


def first_cells(text: str) -> set[str]:
    """Return what the first column of the page's tables says in code."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def test_every_reason_belongs_to_a_kind() -> None:
    assert REASONS["voucher"] | REASONS["redemption"] == set(Reason)
    assert {error.reason for error in errors(OperatorError)} <= set(Reason)


def errors(parent: type[OperatorError]) -> Iterator[type[OperatorError]]:
    for child in parent.__subclasses__():
        if hasattr(child, "reason"):
            yield child
        yield from errors(child)


@KINDS
def test_every_reason_is_explained(kind: str) -> None:
    cells = first_cells(page(kind))
    assert {reason.value for reason in REASONS[kind]} <= cells
    others = {reason.value for reason in Reason if reason not in REASONS[kind]}
    assert not cells & others


@KINDS
def test_every_field_is_named(kind: str) -> None:
    known = set(paths(schema(kind))) - {"spec", "status"}
    cells = first_cells(page(kind))
    assert known <= cells
    assert {cell for cell in cells if cell.startswith(("spec.", "status."))} <= known


@pytest.mark.parametrize(
    ("kind", "conditions"), [("voucher", VOUCHER_CONDITIONS), ("redemption", REDEMPTION_CONDITIONS)]
)
def test_every_condition_is_explained(kind: str, conditions: frozenset[str]) -> None:
    assert conditions <= first_cells(page(kind))


@KINDS
def test_every_state_is_named(kind: str) -> None:
    (states,) = re.findall(r"### States\n(.*?)\n## ", page(kind), re.DOTALL)
    for state in schema(kind)["status"]["properties"]["state"]["enum"]:
        assert re.search(rf"\b{state}\b", states), state

"""The pages name every field, condition, state, reason, module and step there is, and nothing that there is not."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from voucher_operator import telemetry
from voucher_operator.failpoints import Step
from voucher_operator.ledger.purchase.types import PurchaseState, Received
from voucher_operator.resources.conditions import REDEMPTION_CONDITIONS, VOUCHER_CONDITIONS
from voucher_operator.resources.errors import OperatorError
from voucher_operator.resources.reasons import Reason
from voucher_operator.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
BOTH = {Reason.LEDGER_UNAVAILABLE, Reason.SECRET_NOT_FOUND, Reason.SECRET_UNREADABLE, Reason.INVALID_SPEC}
BOTH |= {Reason.REQUEST_REJECTED}
REASONS = {
    "voucher": BOTH
    | {
        Reason.ISSUED,
        Reason.CODE_CONFLICT,
        Reason.CODE_RESERVED,
        Reason.CODE_CONTESTED,
        Reason.CURRENCY_MISMATCH,
        Reason.CODE_CHANGED,
        Reason.INVALID_CODE,
        Reason.CODE_NOT_ALLOWED,
        Reason.NAMESPACE_NOT_SERVED,
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
        Reason.NOT_IN_LEDGER,
        Reason.VOUCHER_NOT_READY,
        Reason.VOUCHER_NOT_FOUND,
        Reason.VOUCHER_INACTIVE,
        Reason.VOUCHER_NOT_YET_VALID,
        Reason.VOUCHER_EXPIRED,
        Reason.REDEMPTION_LIMIT_REACHED,
        Reason.ALREADY_REDEEMED,
        Reason.IDEMPOTENCY_CONFLICT,
        Reason.TOO_MANY_ATTEMPTS,
        Reason.CURRENCY_MISMATCH,
        Reason.PLACED,
        Reason.AWAITING_PAYMENT,
        Reason.COMPLETED,
        Reason.CHECKOUT_EXPIRED,
        Reason.PAYMENT_FAILED,
        Reason.REFUNDED,
        Reason.PAYMENT_LOST,
        Reason.REINSTATED,
        Reason.PAYMENT_DISPUTED,
        Reason.DISPUTE_CLOSED,
        Reason.INVALID_ORDER,
        Reason.CUSTOMER_MISMATCH,
        Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED,
        Reason.PAYMENT_REJECTED,
        Reason.ABANDONED,
        Reason.PAYMENT_PROCESSOR_UNAVAILABLE,
        Reason.CATALOG_UNAVAILABLE,
        Reason.ORGANIZATION_CREATED,
        Reason.ORGANIZATION_NOT_READY,
        Reason.DELEGATED,
        Reason.ORGANIZATION_REFUSED,
    },
}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
EACH_PAGE = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
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


def test_every_reason_belongs_to_a_resource_kind() -> None:
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


@EACH_PAGE
def test_metrics_settings_and_alerts_exist(path: Path) -> None:
    text = path.read_text()
    metrics = {sample.name for metric in telemetry.REGISTRY.collect() for sample in metric.samples}
    metrics |= {metric.name + ("_total" if metric.type == "counter" else "") for metric in telemetry.REGISTRY.collect()}
    rules = (ROOT / "charts" / "bp-voucher-operator" / "templates" / "prometheusrule.yaml").read_text()
    assert set(re.findall(r"\bvoucher_operator_[a-z_]+", text)) <= metrics
    settings = {f"VOUCHER_OPERATOR_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bVOUCHER_OPERATOR_[A-Z_]+", text)) <= settings
    assert set(re.findall(r"\bVoucherOperator[A-Z][A-Za-z]+", text)) <= set(re.findall(r"alert: (\w+)", rules))


@EACH_PAGE
def test_links_have_targets(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(path: Path) -> set[str]:
    """Return what headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_module_is_explained() -> None:
    package = ROOT / "operator" / "voucher_operator"
    files = {file.relative_to(package).with_suffix("") for file in package.rglob("*.py") if file.stem != "__init__"}
    named: list[str] = []
    for cell in re.findall(r"^\| (`[^|]+) \|", architecture("Modules"), re.MULTILINE):
        for module in re.findall(r"`([a-z_.]+)`", cell):
            named.append(module if not module.startswith(".") else named[-1].rpartition(".")[0] + module)
    assert sorted(named) == sorted(".".join(file.parts) for file in files)


def test_every_failpoint_is_named_in_order() -> None:
    (steps,) = re.findall(r"in this order: (.*?)\.\s", architecture("The way of a purchase"), re.DOTALL)
    assert re.findall(r"`(\w+)`", steps) == [effect.value for effect in Step]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[\[=]", one)[0] for one in project["dependencies"]}
    named = {
        name
        for cell in re.findall(r"^\| ([^|]+) \|", architecture("Dependencies"), re.MULTILINE)
        for name in cell.split(", ")
    }
    # The first is one more of psycopg's, the second comes with others.
    assert named - {"library", "---"} == wanted | {"psycopg_pool", "aiohttp"}


def architecture(heading: str) -> str:
    """Return a part of docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return str(part)


def test_every_webhook_result_and_order_state_has_a_remedy() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    source = (ROOT / "operator" / "voucher_operator" / "web" / "webhook.py").read_text()
    results = {received.value for received in Received} | set(re.findall(r'HTTPStatus\.\w+, "(\w+)"', source))
    cells = [set(re.findall(r"`(\w+)`", cell)) for cell in re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)]
    assert results | {"not_configured", "failed"} | {state.value for state in PurchaseState} <= set().union(*cells)

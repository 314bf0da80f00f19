"""The table of a Redemption's states: whole, drawn in docs/redemption.md, and in step with what the ledger may do."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from voucher_operator.controllers.redemption.transitions import ENDS, TRANSITIONS, Cause, cause_of, diagram, target
from voucher_operator.ledger.payment.transitions import TRANSITIONS as PAYMENTS
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.resources.keys import Key
from voucher_operator.resources.redemption import State

ROOT = Path(__file__).resolve().parent.parent.parent
TIME = datetime(2026, 12, 1, tzinfo=UTC)
PURCHASE = Purchase(
    key=Key("billing/kestrel"),
    uid="u-1",
    order_id="o-1",
    state=PurchaseState.PENDING,
    reason=None,
    user_id="ahmed",
    customer_id="c-1",
    tenant_id="kestrel",
    email="ahmed@example.com",
    plan_id="m",
    apps=(),
    addons=(),
    lines=(),
    subdomain="kestrel",
    total_minor=9000,
    held_minor=4000,
    due_minor=5000,
    granted_minor=4000,
    stripe_customer_id=None,
    session_id=None,
    checkout_url=None,
    session_expires_at=None,
    placed_at=TIME,
    deadline_at=TIME,
    settled_at=None,
    overdue=False,
    request_hash="hash-1",
    redeemed=True,
)


def where(state: PurchaseState, *, with_code: bool) -> State:
    return target(cause_of(replace(PURCHASE, state=state), with_code=with_code))


def reachable(start: State) -> set[State]:
    """Return where the arrows lead from a state, in as many steps as it takes."""
    found, ahead = {start}, [start]
    while ahead:
        state = ahead.pop()
        for transition in TRANSITIONS.values():
            if state in transition.sources and transition.target not in found:
                found.add(transition.target)
                ahead.append(transition.target)
    return found


def test_docs_show_the_state_diagram() -> None:
    page = (ROOT / "docs" / "redemption.md").read_text()
    pictures: list[str] = re.findall(r"```mermaid\n(stateDiagram-v2\n.*?)\n```", page, re.DOTALL)
    assert pictures == [diagram()]


def test_every_cause_and_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Cause)
    assert reachable(State.PENDING) == set(State)
    crd: Any = yaml.safe_load((ROOT / "crds" / "redemptions.billing.openova.io.yaml").read_text())
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert status["state"]["enum"] == [state.value for state in State]
    assert set(ENDS) == set(State) - {State.PENDING, State.AWAITING_PAYMENT}


@pytest.mark.parametrize("with_code", [True, False])
def test_each_payment_change_follows_the_table(with_code: bool) -> None:
    """Each change that the ledger makes for a payment leads along arrows, states that were passed over included."""
    for (before, _), step in PAYMENTS.items():
        assert where(step.state, with_code=with_code) in reachable(where(before, with_code=with_code))


@pytest.mark.parametrize("state", list(PurchaseState))
def test_every_purchase_state_is_reachable(state: PurchaseState) -> None:
    assert where(state, with_code=True) in reachable(State.PENDING)


def test_rolled_back_purchase_with_spent_credit_stays_redeemed() -> None:
    taken_back = replace(PURCHASE, state=PurchaseState.ROLLED_BACK, redeemed=False)
    assert where(taken_back.state, with_code=True) is State.REDEEMED
    assert target(cause_of(taken_back, with_code=True)) is State.ROLLED_BACK


def test_completion_by_credit_and_by_card_have_different_causes() -> None:
    completed = replace(PURCHASE, state=PurchaseState.COMPLETED)
    assert cause_of(completed, with_code=True) is Cause.PAID
    assert cause_of(replace(completed, due_minor=0), with_code=True) is Cause.COVERED

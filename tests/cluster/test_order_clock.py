"""An operator and a PostgreSQL whose clocks differ by hours: orders go on, and the difference is shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.operator_process import OperatorProcess
from testbed.scripted_stripe import ScriptedStripe
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import FAST, ResourceClient
from tests.cluster.stripe_fixture import StripeFixture, awaiting, order
from tests.cluster.test_redemption_clock import SHIFT
from tests.conftest import Operators

pytestmark = pytest.mark.long

TWO_HOURS = 7200


@pytest.fixture
def stripe() -> Iterator[ScriptedStripe]:
    with ScriptedStripe() as server:
        yield server


def start(operators: Operators, folder: Path, stripe: ScriptedStripe, offset: int) -> OperatorProcess:
    """Start an operator whose clock is off by so many seconds."""
    (folder / "sitecustomize.py").write_text(SHIFT)
    path = f"{folder}:{Path(__file__).resolve().parent.parent.parent / 'operator'}"
    env = {"PYTHONPATH": path, "CLOCK_OFF": str(offset), **FAST, **StripeFixture(stripe, folder).env}
    return operators.start(env=env, interpreter=True)


@pytest.mark.parametrize("stripe_agrees_with", ["machine", "database"])
def test_card_order_is_checked_out_with_postgresql_two_hours_ahead(
    api: ResourceClient,
    ledger: LedgerReader,
    operators: Operators,
    stripe: ScriptedStripe,
    tmp_path: Path,
    stripe_agrees_with: str,
) -> None:
    """PostgreSQL is ahead of the operator; Stripe has the time of the one or of the other."""
    stripe.clock_offset = -TWO_HOURS if stripe_agrees_with == "machine" else 0
    operator = start(operators, tmp_path, stripe, -TWO_HOURS)
    made = api.redeem(api.voucher().code, order=order("xl"))
    made.wait(awaiting())
    operator.wait_ready(leader=True)
    answer = operator.ready()
    assert answer["problems"] == {}
    assert "ahead of this machine's: check the time synchronisation" in answer["clock"]
    assert abs(operator.metrics()["voucher_operator_clock_offset_seconds"] - TWO_HOURS) < 30
    assert ledger.row("SELECT state FROM vouchers.purchase") == ("awaiting_payment",)

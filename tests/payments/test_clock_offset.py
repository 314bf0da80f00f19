"""Clocks that differ: whichever of PostgreSQL's and this machine's is wrong, Stripe takes the checkout."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from tests.payments.helpers import place
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.clock import difference
from voucher_operator.ledger.credit import accounts
from voucher_operator.ledger.purchase.types import PurchaseState
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.payments.stripe_requests import SESSION_SECONDS, expires_at

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def shift_database_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Have the ledger tell another time than this machine's."""
    shifted = f"(clock_timestamp() + interval '{by.total_seconds()} seconds')".encode()
    monkeypatch.setattr(accounts, "_INFO", accounts._INFO.replace(b"clock_timestamp()", shifted))


@pytest.mark.parametrize("stripe_agrees_with", ["machine", "database"])
@pytest.mark.parametrize("hours", [2, -2, 0.5, -0.5])
async def test_order_is_checked_out_whichever_clock_is_wrong(
    checkout: Checkout,
    ledger: Ledger,
    database18: Database,
    stripe: ScriptedStripe,
    monkeypatch: pytest.MonkeyPatch,
    hours: float,
    stripe_agrees_with: str,
) -> None:
    shift = timedelta(hours=hours)
    purchase = await place(ledger, database18)
    shift_database_clock(monkeypatch, shift)
    stripe.clock_offset = shift.total_seconds() if stripe_agrees_with == "database" else 0
    advanced = await checkout.advance(replace(purchase, placed_at=purchase.placed_at + shift))
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    stripe_now = datetime.now(UTC).timestamp() + stripe.clock_offset
    assert 20 * 3600 < stripe.only_session()["expires_at"] - stripe_now < 24 * 3600


@pytest.mark.parametrize("days", [1, -1, 400, -400])
async def test_order_is_checked_out_with_a_database_in_another_year(
    checkout: Checkout,
    ledger: Ledger,
    database18: Database,
    stripe: ScriptedStripe,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    shift = timedelta(days=days)
    purchase = await place(ledger, database18)
    shift_database_clock(monkeypatch, shift)
    advanced = await checkout.advance(replace(purchase, placed_at=purchase.placed_at + shift))
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert stripe.only_session()["amount_total"] == 9_000


@pytest.mark.parametrize("seconds", [0, 29, -29])
def test_small_difference_has_no_effect(seconds: int) -> None:
    offset = timedelta(seconds=seconds)
    assert expires_at(NOW, offset) == int(NOW.timestamp()) + SESSION_SECONDS
    assert difference(offset) is None


def test_repeated_request_has_the_same_end_while_the_difference_varies_by_minutes() -> None:
    ends = {expires_at(NOW, timedelta(hours=2, seconds=seconds)) for seconds in range(-400, 400, 7)}
    assert ends == {int((NOW - timedelta(hours=2)).timestamp()) + SESSION_SECONDS}


async def test_difference_is_measured_by_the_check(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ledger.check()
    assert abs(ledger.clock_offset) < timedelta(seconds=30)
    shift_database_clock(monkeypatch, timedelta(hours=-2))
    await ledger.check()
    assert abs(ledger.clock_offset + timedelta(hours=2)) < timedelta(seconds=30)
    assert "s behind this machine's" in (difference(ledger.clock_offset) or "")

"""The SQL of docs/operations.md does what the page says."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import holding, issue, redeem_request, rows
from tests.ledger.purchase_rows import place, violated
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Dispute, Payment, PaymentEffect, PurchaseState, Received
from voucher_operator.resources.errors import LedgerUnavailableError

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "operations.md"


def statements(heading: str) -> list[str]:
    """Return the SQL below a heading."""
    (section,) = re.findall(rf"^###? {heading}\n(.*?)(?:^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found: list[str] = re.findall(r"```sql\n(.*?)\n```", section, re.DOTALL)
    return found


async def test_page_statements_find_and_settle_a_mismatched_payment(ledger18: Ledger, database18: Database) -> None:
    look, settle = statements("A payment that fits no order")
    seen = []
    for type_, shape in (
        ("checkout.session.completed", {"data": {"object": {"amount_total": 7}}}),
        ("lookup", {"amount_total": 7}),
    ):
        placed = await place(database18, PurchaseState.ROLLED_BACK, user=type_)
        event = replace(placed.event(), raw=json.dumps(shape).encode(), type=type_)
        assert await ledger18.receive(event) is Received.MISMATCH
        (row,) = await rows(database18, look.rstrip(";"))
        seen.append((row[0], row[2], row[-1]) == (event.event_id, placed.key, "7"))
        assert settle.count("evt_…") == 1
        await rows(database18, settle.replace("evt_…", event.event_id))
        assert await violated(database18) == []
    assert seen == [True, True]


async def test_page_statements_settle_refunds_and_disputes(ledger18: Ledger, database18: Database) -> None:
    payment_settled, dispute_settled = statements("Refunds and disputes")
    placed, lost = await place(database18), await place(database18, user="other")
    said = Dispute("du_1", "needs_response", datetime.now(UTC))
    await ledger18.receive(placed.event())
    await ledger18.receive(placed.event(PaymentEffect.DISPUTED, dispute=said))
    for refunded, effect in ((placed.due, PaymentEffect.REFUNDED), (0, PaymentEffect.PARTLY_REFUNDED)):
        payment = Payment("pi_1", None, None, placed.due, refunded, datetime.now(UTC))
        await ledger18.receive(placed.event(effect, payment=payment))
    await ledger18.receive(lost.event())
    await ledger18.receive(lost.event(PaymentEffect.DISPUTED, dispute=replace(said, dispute_id="du_2", status="lost")))
    assert [invariant for invariant, _ in await violated(database18)] == ["payments"] * 3
    await rows(database18, dispute_settled.replace("du_…", "du_1"))
    outstanding, refund = payment_settled.split(";\n", 1)
    amount = await rows(
        database18, "SELECT outstanding_minor FROM vouchers.payment WHERE session_id = %s", lost.session
    )
    await rows(database18, outstanding.replace("cs_…", lost.session or "").replace("20000", f"{amount[0][0]}"))
    await rows(database18, refund.replace("cs_…", placed.session or ""))
    assert await violated(database18) == []


async def test_page_statement_finds_the_session_that_holds_a_row(ledger18: Ledger, database18: Database) -> None:
    (look,) = statements("When a replica freezes or its node is lost")
    await issue(database18, "HELD")
    async with holding(database18, "SELECT FROM promo_codes WHERE code = 'HELD' FOR UPDATE") as holder:
        waiting = asyncio.create_task(ledger18.redeem(redeem_request("HELD")))
        found: list[int] = []
        async with asyncio.timeout(20):
            while not found:
                found = [pid for pid, *_ in await rows(database18, look.rstrip(";"))]
        assert found == [holder.info.backend_pid]
        with pytest.raises(LedgerUnavailableError):
            await waiting


async def test_page_statement_lists_unpublished_events(ledger18: Ledger, database18: Database) -> None:
    await ledger18.receive((await place(database18)).event())
    (look,) = statements("Events wait")
    assert [row[:2] for row in await rows(database18, look.rstrip(";"))] == [("order.placed", 1)]

"""Whose credit an order may spend: only its own tenant's by the ledger, unless a setting allows more.

See also: test_purchase.py for what an order writes, docs/redemption.md for who is trusted with what.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, issue, redeem_outcome, redeem_request, rows
from tests.ledger.purchase_helpers import (
    add_credit,
    place_purchase,
    purchase_outcome,
    purchase_request,
    row_counts,
    with_redeem_changes,
)
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase import batch as purchase_batch
from voucher_operator.ledger.purchase.types import PurchaseRequest, PurchaseState
from voucher_operator.resources.reasons import Reason

pytestmark = ON_POSTGRESQL_16

MISMATCH = Reason.CUSTOMER_MISMATCH.value


def request_of_another_tenant(
    total: int = 9_000, code: str = "", user: str = "ahmed", **changes: Any
) -> PurchaseRequest:
    """Ask to buy for a tenant that is not the user's."""
    request = purchase_request(total, code, user, **changes)
    return replace(request, redeem=replace(request.redeem, tenant_id="stranger"))


@pytest.mark.parametrize("total", [9_000, 50_000], ids=["credit pays all", "credit pays a part"])
@pytest.mark.parametrize("payable", [True, False])
async def test_credit_of_another_tenants_customer_is_not_spent(
    ledger: Ledger, database: Database, total: int, payable: bool
) -> None:
    await add_credit(database, "ahmed", 10_000)
    before = await row_counts(database)
    request = request_of_another_tenant(total, payable=payable)
    result = await ledger.purchase(request)
    assert (purchase_outcome(result), result.purchase, result.redeemed) == (MISMATCH, None, None)
    assert await row_counts(database) == before
    replayed = await ledger.purchase(request)
    assert (purchase_outcome(replayed), replayed.replayed, replayed.decided_at) == (MISMATCH, True, result.decided_at)
    assert purchase_outcome(await ledger.purchase(purchase_request(9_000, "", "ahmed"))) == "completed"


async def test_code_of_a_mismatched_request_is_not_used(ledger: Ledger, database: Database) -> None:
    """Its credit would be the customer's, and spent for another tenant at once."""
    await issue(database, "TEN", 10, max_redemptions=1)
    await add_credit(database, "ahmed", 0)
    before = await row_counts(database)
    assert purchase_outcome(await ledger.purchase(request_of_another_tenant(9_000, "TEN"))) == MISMATCH
    assert await row_counts(database) == before
    assert await rows(database, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(0, 0)]
    assert purchase_outcome(await ledger.purchase(purchase_request(9_000, "TEN", "ahmed"))) == "completed"


async def test_customer_created_by_the_go_service_has_the_tenant_of_its_checkout(
    ledger: Ledger, database: Database
) -> None:
    await issue(database, "TEN", 10)
    async with GoService.connect(database.owner_url) as go:
        await go.redeem(await go.customer("ahmed", "kestrel"), "TEN")
    assert purchase_outcome(await ledger.purchase(purchase_request(9_000, "", "ahmed"))) == MISMATCH
    own = purchase_request(9_000, "", "ahmed")
    assert (
        purchase_outcome(await ledger.purchase(replace(own, redeem=replace(own.redeem, tenant_id="kestrel"))))
        == "completed"
    )


async def test_any_tenant_setting_allows_spending_for_another_tenant(ledger: Ledger, database: Database) -> None:
    await add_credit(database, "ahmed", 10_000)
    purchase = await place_purchase(ledger, request_of_another_tenant(any_tenant=True))
    assert (purchase.state, purchase.held_minor, purchase.tenant_id) == (PurchaseState.COMPLETED, 9_000, "stranger")
    assert await rows(database, "SELECT tenant_id FROM customers") == [("tenant",)]


async def test_card_alone_pays_for_any_tenant(ledger: Ledger, database: Database) -> None:
    """No credit is spent: there is none, the card has to pay all of it, or the price is 0."""
    await add_credit(database, "ahmed", 0)
    assert (await place_purchase(ledger, request_of_another_tenant(50_000))).held_minor == 0
    await add_credit(database, "sara", 100)
    assert (await place_purchase(ledger, request_of_another_tenant(200, user="sara"))).held_minor == 0
    assert (await place_purchase(ledger, request_of_another_tenant(0, user="sara"))).held_minor == 0
    assert (
        purchase_outcome(await ledger.purchase(request_of_another_tenant(9_000, payable=False)))
        == "PaymentProcessorNotConfigured"
    )


async def test_new_customer_has_the_tenant_of_the_first_request(ledger: Ledger, database: Database) -> None:
    await issue(database, "TEN", 10)
    assert purchase_outcome(await ledger.purchase(request_of_another_tenant(9_000, "TEN"))) == "completed"
    assert await rows(database, "SELECT tenant_id FROM customers") == [("stranger",)]


async def test_redemption_without_an_order_is_not_refused(ledger: Ledger, database: Database) -> None:
    """It gives credit to the customer only, for any tenant."""
    await issue(database, "TEN", 10)
    await add_credit(database, "ahmed", 0)
    assert redeem_outcome(await ledger.redeem(redeem_request("TEN", "ahmed", tenant_id="stranger"))) == "redeemed"
    assert await ledger.balance("ahmed") == 10_000
    assert await rows(database, "SELECT tenant_id FROM customers") == [("tenant",)]


async def test_placed_order_is_replayed_after_the_setting_changed(ledger: Ledger, database: Database) -> None:
    await add_credit(database, "ahmed", 10_000)
    request = request_of_another_tenant(any_tenant=True)
    first = await place_purchase(ledger, request)
    for asked in (
        replace(request, any_tenant=False),
        with_redeem_changes(replace(request, any_tenant=False), uid="another"),
    ):
        result = await ledger.purchase(asked)
        assert (result.purchase, result.replayed) == (first, True)


async def test_refusal_is_replayed_for_the_same_uid_only(ledger: Ledger, database: Database) -> None:
    """Created again after the setting has changed, it is decided again."""
    await add_credit(database, "ahmed", 10_000)
    request = request_of_another_tenant()
    assert purchase_outcome(await ledger.purchase(request)) == MISMATCH
    allowed = replace(request, any_tenant=True)
    assert purchase_outcome(await ledger.purchase(allowed)) == MISMATCH
    assert purchase_outcome(await ledger.purchase(with_redeem_changes(allowed, uid="another"))) == "completed"


async def test_tenant_is_read_after_the_customer_lock(ledger: Ledger, database: Database) -> None:
    """It is read by the statement that spends, after the lock."""
    customer = await add_credit(database, "ahmed", 10_000)
    await rows(database, "UPDATE customers SET tenant_id = 'stranger' WHERE id = %s", customer)
    assert purchase_outcome(await ledger.purchase(request_of_another_tenant())) == "completed"
    assert purchase_outcome(await ledger.purchase(purchase_request(500, "", "ahmed"))) == MISMATCH


@pytest.mark.parametrize(
    ("total", "refusal", "changes"),
    [(9_000, MISMATCH, {}), (50_000, MISMATCH, {}), (10_100, Reason.INVALID_ORDER.value, {"minimum_minor": 20_000})],
    ids=["credit pays all", "credit pays a part", "card cannot pay so little"],
)
async def test_mismatched_orders_are_refused_in_few_transactions(
    ledger: Ledger,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    total: int,
    refusal: str,
    changes: dict[str, Any],
) -> None:
    """The use that one of them does not get comes free for the next: not in a transaction each."""
    attempts: list[int] = []
    attempt = purchase_batch._attempt

    def seen(conn: Any, requests: Sequence[Any], *others: Any) -> Any:
        attempts.append(len(requests))
        return attempt(conn, requests, *others)

    monkeypatch.setattr(purchase_batch, "_attempt", seen)
    await issue(database, "TEN", 10, max_redemptions=1)
    for n in range(30):
        await add_credit(database, f"user-{n}", 0)
    make = purchase_request if refusal == Reason.INVALID_ORDER else request_of_another_tenant
    orders = [ledger.purchase(make(total, "TEN", user=f"user-{n}", **changes)) for n in range(30)]
    assert Counter(purchase_outcome(result) for result in await asyncio.gather(*orders)) == {refusal: 30}
    assert len(attempts) <= 4
    assert await rows(database, "SELECT times_redeemed FROM promo_codes") == [(0,)]


async def test_order_paid_by_card_alone_gets_the_freed_use(ledger: Ledger, database: Database) -> None:
    """Its tenant does not matter, for the card's least amount is all of the price."""
    await issue(database, "TEN", 10, max_redemptions=1)
    await issue(database, "SMALL", 0, credit_minor=100, max_redemptions=1)
    await add_credit(database, "ahmed", 0)
    await add_credit(database, "sara", 0)
    first, second = request_of_another_tenant(9_000, "SMALL"), request_of_another_tenant(200, "SMALL", user="sara")
    answers = [result for result in await ledger._purchase([first, second]) if not isinstance(result, Exception)]
    assert [purchase_outcome(one) for one in answers] == [MISMATCH, "pending"]
    assert [one.purchase and one.purchase.held_minor for one in answers] == [None, 0]


@pytest.mark.parametrize("mismatched", [False, True])
@pytest.mark.parametrize("payable", [False, True])
async def test_python_rule_agrees_with_the_statement(
    ledger: Ledger, database: Database, payable: bool, mismatched: bool
) -> None:
    """The rule is there twice, for a code that comes free is not yet in the balance that the statement sees."""
    n = 0
    for total in (0, 199, 200, 205, 9_000, 50_000):
        for balance in (-5, 0, 1, 4, 5, 100, 199, 200, 8_999, 9_000, 50_000):
            n += 1
            await add_credit(database, f"user-{n}", balance)
            request = (request_of_another_tenant if mismatched else purchase_request)(
                total, "", user=f"user-{n}", payable=payable
            )
            told_before = request.refusal(balance, mismatched=mismatched)
            result = await ledger.purchase(request)
            assert result.refusal is told_before, (total, balance)
            if result.purchase is not None:
                assert result.purchase.due_minor == request.due_minor(balance), (total, balance)
    await rows(database, "DELETE FROM credit_ledger WHERE amount_minor < 0 AND reason = 'gift'")

"""Compensation of a purchase: hold, redemption and order are reversed once, whatever the Go service did meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import issue, open_ledger, rows, terms
from tests.ledger.purchase_helpers import (
    add_credit,
    events,
    place_purchase,
    purchase_outcome,
    purchase_request,
    row_counts,
    with_redeem_changes,
)
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.resources.errors import RequestRejectedError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)


async def back(ledger: Ledger, purchase: Purchase, reason: Reason = Reason.PAYMENT_REJECTED) -> Purchase:
    """Compensate, and expect that there was something to."""
    found = await ledger.compensate(purchase.key, reason)
    assert found is not None
    return found


async def entries(database: Database) -> list[tuple[Any, ...]]:
    return await rows(
        database,
        "SELECT amount_omr, amount_minor, reason, order_id IS NOT NULL FROM credit_ledger "
        "ORDER BY created_at, amount_minor",
    )


async def test_compensation_reverses_hold_redemption_and_order(ledger18: Ledger, database18: Database) -> None:
    await ledger18.put(terms(max_redemptions=1, credit_minor=10_500))
    await add_credit(database18, "ahmed", 1_000)
    request = purchase_request(50_000, "CODE", "ahmed")
    placed = await place_purchase(ledger18, request)
    taken = await back(ledger18, placed)
    assert (taken.state, taken.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_REJECTED)
    assert (taken.order_id, taken.held_minor, taken.settled_at is not None) == (placed.order_id, 11_500, True)
    assert await entries(database18) == [
        (1, 1_000, "gift", False),
        (10, 10_500, "promo:CODE", False),
        (-11, -11_500, "order-payment", True),
        (11, 11_500, "order-payment", True),
        (-10, -10_500, "promo:CODE", False),
    ]
    assert await rows(database18, "SELECT status FROM orders") == [("failed",)]
    assert await rows(database18, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(0, 0)]
    assert await rows(database18, "SELECT outcome FROM vouchers.redemption") == [("undone",)]
    assert await rows(
        database18, "SELECT e.amount_minor FROM vouchers.purchase p JOIN credit_ledger e ON e.id = p.release_entry_id"
    ) == [(11_500,)]
    assert (await events(database18, "redemption.rolled_back")) == [
        (
            "redemption.rolled_back",
            "tenant",
            {
                "key": request.key,
                "order_id": placed.order_id,
                "customer_id": placed.customer_id,
                "user_id": "ahmed",
                "reason": "PaymentRejected",
                "released_minor": 11_500,
                "credit_minor": 10_500,
                "currency": "OMR",
                "code": "CODE",
                "namespace": "billing",
                "name": "first",
            },
        )
    ]
    # The customer may redeem again, under another name; under this one it stays taken back.
    assert purchase_outcome(await ledger18.purchase(request)) == "rolled_back"
    assert purchase_outcome(await ledger18.purchase(purchase_request(9_000, "CODE", "ahmed"))) == "completed"


async def test_repeated_compensation_reverses_once(ledger18: Ledger, database18: Database) -> None:
    await issue(database18)
    placed = await place_purchase(ledger18, purchase_request(50_000, "CODE", "ahmed"))
    async with open_ledger(database18.runtime_url) as other:
        taken = await asyncio.gather(*(back(either, placed) for either in (ledger18, other) * 8))
    assert {(one.state, one.reason, one.settled_at) for one in taken} == {
        (PurchaseState.ROLLED_BACK, Reason.PAYMENT_REJECTED, taken[0].settled_at)
    }
    assert await back(ledger18, placed, Reason.ABANDONED) == taken[0]
    assert len(await entries(database18)) == 4
    assert len(await events(database18, "redemption.rolled_back")) == 1


async def test_compensation_changes_only_pending_purchases(ledger18: Ledger, database18: Database) -> None:
    """A customer who has the checkout URL may be about to pay."""
    await issue(database18)
    placed = await place_purchase(ledger18, purchase_request(50_000, "CODE", "ahmed"))
    before = await row_counts(database18)
    for state in set(PurchaseState) - {PurchaseState.PENDING}:
        await rows(database18, "UPDATE vouchers.purchase SET state = %s", state.value)
        assert (await back(ledger18, placed)).state is state
    assert await row_counts(database18) == before
    assert await rows(database18, "SELECT status FROM orders") == [("pending",)]
    await rows(database18, "UPDATE vouchers.purchase SET state = 'pending'")


async def test_compensation_leaves_a_completed_purchase(ledger18: Ledger, database18: Database) -> None:
    await issue(database18)
    placed = await place_purchase(ledger18, purchase_request(9_000, "CODE", "ahmed"))
    assert await back(ledger18, placed) == placed
    assert await ledger18.compensate(Key("nobody/knows"), Reason.ABANDONED) is None


async def test_compensation_without_code_or_hold_releases_what_was_held(ledger18: Ledger, database18: Database) -> None:
    await add_credit(database18, "ahmed", 1_000)
    await back(ledger18, await place_purchase(ledger18, purchase_request(50_000, "", "ahmed")))
    assert await ledger18.balance("ahmed") == 1_000
    await back(ledger18, await place_purchase(ledger18, purchase_request(50_000, "", "sara")))
    assert len(await entries(database18)) == 3
    assert await rows(database18, "SELECT DISTINCT status FROM orders") == [("failed",)]
    reported = [data for _, _, data in await events(database18, "redemption.rolled_back")]
    assert [(data["released_minor"], data["credit_minor"], "code" in data) for data in reported] == [
        (1_000, 0, False),
        (0, 0, False),
    ]


async def test_compensation_keeps_the_redemption_when_its_credit_was_spent(
    ledger18: Ledger, database18: Database
) -> None:
    """The hold is released, which pays its debt; what cannot be taken back without another debt stays."""
    await issue(database18)
    placed = await place_purchase(ledger18, purchase_request(50_000, "CODE", "ahmed"))
    async with GoService.connect(database18.owner_url) as go:
        await go.spend(await go.customer("ahmed"), 4)
    assert [v.invariant for v in await verify(database18.admin_url)] == ["balance"]
    taken = await back(ledger18, placed)
    assert (placed.redeemed, taken.state, taken.redeemed) == (True, PurchaseState.ROLLED_BACK, True)
    assert await ledger18.balance("ahmed") == 6_000
    assert await rows(database18, "SELECT outcome FROM vouchers.redemption") == [("redeemed",)]
    assert await rows(database18, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(1, 10_000)]
    (_, _, data) = (await events(database18, "redemption.rolled_back"))[0]
    assert (data["released_minor"], data["credit_minor"]) == (10_000, 0)


async def test_compensation_after_go_undo_reverses_once(ledger18: Ledger, database18: Database) -> None:
    await issue(database18)
    placed = await place_purchase(ledger18, purchase_request(50_000, "CODE", "ahmed"))
    async with GoService.connect(database18.owner_url) as go:
        assert await go.undo(await go.customer("ahmed"), "CODE")
    await back(ledger18, placed)
    assert await ledger18.balance("ahmed") == 0
    assert await rows(database18, "SELECT times_redeemed, granted_minor FROM promo_codes") == [(0, 0)]


async def test_compensation_works_for_a_revoked_code(ledger18: Ledger) -> None:
    await ledger18.put(terms())
    placed = await place_purchase(ledger18, purchase_request(50_000, "CODE", "ahmed"))
    await ledger18.revoke((await ledger18.owners())[0])
    await back(ledger18, placed)
    assert await ledger18.balance("ahmed") == 0


async def test_compensation_and_concurrent_session_note_exclude_each_other(
    ledger18: Ledger, database18: Database
) -> None:
    """One of the two comes first, and the other one leaves it so."""
    await issue(database18)
    placed = [await place_purchase(ledger18, purchase_request(50_000, "CODE")) for _ in range(12)]
    async with open_ledger(database18.runtime_url) as other:
        await asyncio.gather(
            *(back(ledger18, one) for one in placed),
            *(other.record_session(one.key, f"cs_{one.key}", "https://pay", EXPIRES) for one in placed),
        )
    found = {p.key: p.state for one in placed if (p := await ledger18.purchase_of(one.key))}
    assert set(found.values()) <= {PurchaseState.ROLLED_BACK, PurchaseState.AWAITING_PAYMENT}
    noted = await rows(
        database18,
        "SELECT p.key FROM vouchers.purchase p JOIN orders o ON o.id = p.order_id "
        "WHERE o.status = 'pending' AND o.stripe_session_id = p.session_id AND p.session_id = 'cs_' || p.key",
    )
    assert {key for (key,) in noted} == {key for key, s in found.items() if s is PurchaseState.AWAITING_PAYMENT}


async def test_compensation_beside_orders_of_the_same_customer_keeps_the_balance(
    ledger18: Ledger, database18: Database
) -> None:
    """While holds come and go, nobody spends what is held, and nothing deadlocks for long."""
    await add_credit(database18, "ahmed", 10_000)
    await issue(database18, "MORE", 5)
    async with open_ledger(database18.runtime_url) as other:

        async def try_one(either: Ledger, code: str) -> None:
            purchase = (await either.purchase(purchase_request(12_000, code, "ahmed"))).purchase
            if purchase is not None:
                assert (await back(other, purchase)).state in (PurchaseState.ROLLED_BACK, PurchaseState.COMPLETED)

        await asyncio.gather(*(try_one(ledger18, "MORE" if n % 3 == 0 else "") for n in range(18)))
    completed = await rows(database18, "SELECT count(*)::int FROM vouchers.purchase WHERE state = 'completed'")
    redeemed = await rows(database18, "SELECT count(*)::int FROM promo_redemptions")
    assert await ledger18.balance("ahmed") == 10_000 + 5_000 * redeemed[0][0] - 12_000 * completed[0][0]


async def test_customer_and_session_are_noted_once(ledger18: Ledger) -> None:
    placed = await place_purchase(ledger18, purchase_request(50_000, "", "ahmed"))
    await ledger18.record_customer(placed.key, "cus_1")
    await ledger18.record_customer(placed.key, "cus_1")
    noted = await ledger18.record_session(placed.key, "cs_1", "https://pay/1", EXPIRES)
    assert (noted.state, noted.session_id, noted.checkout_url) == (
        PurchaseState.AWAITING_PAYMENT,
        "cs_1",
        "https://pay/1",
    )
    assert (noted.stripe_customer_id, noted.session_expires_at) == ("cus_1", EXPIRES)
    assert await ledger18.record_session(placed.key, "cs_2", "https://pay/2", EXPIRES) == noted
    assert await ledger18.purchase_of(placed.key) == noted
    assert await ledger18.open_purchases(10) == []
    with pytest.raises(RequestRejectedError):
        await ledger18.record_session(Key("nobody/knows"), "cs_3", "https://pay/3", EXPIRES)


async def test_open_purchases_lists_pending_ones_oldest_first(ledger18: Ledger) -> None:
    first, second = [await place_purchase(ledger18, purchase_request(50_000)) for _ in range(2)]
    await place_purchase(ledger18, purchase_request(0))
    assert await ledger18.open_purchases(1) == [first]
    assert await ledger18.open_purchases(9) == [first, second]


async def test_undelivered_ends_are_listed_until_delivered(ledger18: Ledger, database18: Database) -> None:
    """An end at once, and again after each pause until it is delivered; the next end anew; no other's."""
    placed = await place_purchase(ledger18, purchase_request(50_000))

    async def undelivered(seconds: float = 60, *namespaces: str) -> list[str]:
        return [one.key for one in await ledger18.undelivered_purchases(namespaces or ("billing",), seconds, 9)]

    assert await undelivered(0) == []
    end = await back(ledger18, placed)
    assert end.settled_at is not None
    assert await undelivered(0, "shop") == []
    assert [await undelivered(), await undelivered(), await undelivered(0)] == [[placed.key], [], [placed.key]]
    await ledger18.record_delivered({placed.key: end.settled_at - timedelta(seconds=1)})
    assert await undelivered(0) == [placed.key], "another end was delivered"
    await ledger18.record_delivered({placed.key: end.settled_at, Key("billing/never"): end.settled_at})
    assert await undelivered(0) == []
    await rows(database18, "UPDATE vouchers.purchase SET settled_at = clock_timestamp()")
    assert await undelivered() == [placed.key]


async def test_deadline_is_judged_by_the_ledger_clock(ledger18: Ledger) -> None:
    request = purchase_request(50_000, deadline_seconds=0)
    await place_purchase(ledger18, request)
    assert [p.overdue for p in (await ledger18.purchase_of(request.key),) if p] == [True]
    assert purchase_outcome(await ledger18.purchase(with_redeem_changes(request, uid="another"))) == "pending"

"""What a payment's event does to a purchase: once, in whatever order events come, and together with being kept."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import open_ledger, rows
from tests.ledger.purchase_rows import entries, event_outcomes, mark_mismatches_settled, order_state, place, violated
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PaymentEffect, PurchaseState, Received
from voucher_operator.resources.errors import RequestRejectedError

PENDING, AWAITING, COMPLETED, CANCELLED, ROLLED_BACK, REFUNDED, CHARGED_BACK = PurchaseState
PAID, PROCESSING, EXPIRED, FAILED, GIVEN_BACK, PARTLY, DISPUTED, *DERIVED, NONE = PaymentEffect
HELD = 10_500

CHANGES = {
    (PENDING, PAID): (COMPLETED, "completed", 0),
    (PENDING, FAILED): (CANCELLED, "cancelled", HELD),
    (PENDING, GIVEN_BACK): (REFUNDED, "refunded", HELD),
    (AWAITING, PAID): (COMPLETED, "completed", 0),
    (AWAITING, EXPIRED): (CANCELLED, "cancelled", HELD),
    (AWAITING, FAILED): (CANCELLED, "cancelled", HELD),
    (AWAITING, GIVEN_BACK): (REFUNDED, "refunded", HELD),
    (CANCELLED, PAID): (COMPLETED, "completed", 0),
    (CANCELLED, GIVEN_BACK): (REFUNDED, "refunded", HELD),
    (COMPLETED, GIVEN_BACK): (REFUNDED, "refunded", HELD),
    (ROLLED_BACK, GIVEN_BACK): (ROLLED_BACK, "failed", HELD),
}
"""State, the order's status and the customer's balance after an event that is applied; all others change nothing."""


async def test_each_effect_changes_each_state_as_the_table_says(ledger18: Ledger, database18: Database) -> None:
    expected, seen = {}, {}
    effects = [effect for effect in PaymentEffect if effect not in DERIVED]
    for state, effect in itertools.product(PurchaseState, effects):
        placed = await place(database18, state, user=f"{state}-{effect}")
        before = await order_state(database18, placed)
        if state is ROLLED_BACK and effect is PAID:
            expected[state, effect] = (Received.MISMATCH, *before)
        elif (state, effect) in CHANGES:
            expected[state, effect] = (Received.APPLIED, *CHANGES[state, effect])
        else:
            expected[state, effect] = (Received.NO_CHANGE, *before)
        seen[state, effect] = (await ledger18.receive(placed.event(effect)), *await order_state(database18, placed))
    assert seen == expected
    assert {invariant for invariant, _ in await violated(database18)} == {"webhook_events"}
    await mark_mismatches_settled(database18)


async def test_paid_event_completes_the_order_and_writes_its_event(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    event = placed.event()
    assert await ledger18.receive(event) is Received.APPLIED
    assert await rows(
        database18,
        "SELECT reason, session_id, subscription_id, settled_at = updated_at, settled_at > placed_at "
        "FROM vouchers.purchase",
    ) == [(None, placed.session, event.subscription_id, True, True)]
    assert await rows(
        database18, "SELECT customer_id::text, tenant_id, stripe_subscription_id, plan_id, status FROM subscriptions"
    ) == [(placed.customer, "kestrel-pharmacy", event.subscription_id, "l", "active")]
    assert await entries(database18, placed) == [(-10, -HELD, "order-payment")]
    assert await rows(database18, "SELECT type, raw, session_id, order_id, outcome FROM vouchers.webhook_event") == [
        ("test.paid", b'{"id": "evt"}', placed.session, placed.order, "applied")
    ]
    (sent,) = await ledger18.outbox_pending(10)
    assert (sent.type, sent.tenant_id, sent.metadata) == ("order.placed", "kestrel-pharmacy", {})
    assert sent.data == {
        "id": placed.order,
        "customer_id": placed.customer,
        "tenant_id": "kestrel-pharmacy",
        "plan_id": "l",
        "apps": ["shop"],
        "addons": ["waf"],
        "amount_omr": 50,
        "amount_baisa": 50_000,
        "status": "completed",
        "subdomain": "kestrel",
    }


async def test_payment_before_the_session_is_noted_completes_the_order(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18, PENDING)
    event = placed.event()
    assert await ledger18.receive(event) is Received.APPLIED
    assert await rows(
        database18,
        "SELECT p.session_id, o.stripe_session_id FROM vouchers.purchase p JOIN orders o ON o.id = p.order_id",
    ) == [(event.session_id, event.session_id)]


@pytest.mark.parametrize("named", [{"order_id": None}, {"session_id": None}, {"order_id": "no uuid"}])
async def test_event_with_session_or_order_finds_the_purchase(
    ledger18: Ledger, database18: Database, named: dict[str, Any]
) -> None:
    placed = await place(database18)
    await place(database18, user="somebody else")
    assert await ledger18.receive(placed.event(**named)) is Received.APPLIED
    assert (await order_state(database18, placed))[0] == "completed"
    assert await rows(database18, "SELECT order_id FROM vouchers.webhook_event") == [(placed.order,)]


@pytest.mark.parametrize(("effect", "reason"), [(EXPIRED, "CheckoutExpired"), (FAILED, "PaymentFailed")])
async def test_expired_or_failed_checkout_releases_the_hold(
    ledger18: Ledger, database18: Database, effect: PaymentEffect, reason: str
) -> None:
    placed = await place(database18, credit=20_000)
    assert await ledger18.receive(placed.event(effect)) is Received.APPLIED
    assert await entries(database18, placed) == [(-11, -HELD, "order-payment"), (11, HELD, "order-payment")]
    assert await order_state(database18, placed) == ("cancelled", "cancelled", 20_000)
    assert await rows(
        database18,
        "SELECT p.reason, e.amount_minor FROM vouchers.purchase p JOIN credit_ledger e ON e.id = p.release_entry_id",
    ) == [(reason, HELD)]
    assert await ledger18.outbox_pending(10) == []


async def test_full_refund_releases_the_credit_once(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger18.receive(placed.event())
    assert await ledger18.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await ledger18.receive(placed.event(GIVEN_BACK)) is Received.NO_CHANGE
    assert await entries(database18, placed) == [(-10, -HELD, "order-payment"), (10, HELD, "order-payment")]
    assert await order_state(database18, placed) == ("refunded", "refunded", HELD)
    assert await rows(database18, "SELECT status, updated_at > created_at FROM subscriptions") == [("canceled", True)]
    assert await rows(database18, "SELECT reason FROM vouchers.purchase") == [("Refunded",)]


async def test_refund_without_subscription_cancels_the_orders_own(ledger18: Ledger, database18: Database) -> None:
    placed, other = await place(database18), await place(database18, user="other")
    for one in (placed, other):
        await ledger18.receive(one.event(subscription_id=None))
    await ledger18.receive(placed.event(GIVEN_BACK))
    assert await rows(database18, "SELECT status FROM subscriptions WHERE id = %s", placed.order) == [("canceled",)]
    assert await rows(database18, "SELECT status FROM subscriptions WHERE id = %s", other.order) == [("active",)]


async def test_order_without_credit_writes_no_hold_or_release(ledger18: Ledger, database18: Database) -> None:
    for effect, state in ((PAID, "completed"), (EXPIRED, "cancelled"), (GIVEN_BACK, "refunded")):
        placed = await place(database18, credit=0, held=0, due=50_000, user=effect)
        assert await ledger18.receive(placed.event(effect)) is Received.APPLIED
        assert (await order_state(database18, placed))[0] == state
        assert await entries(database18, placed) == []


async def test_payment_and_refund_in_any_order_end_refunded(ledger18: Ledger, database18: Database) -> None:
    """Paid and refunded: the end is the same, also when the checkout had been given up, or was not noted yet."""
    for start in (PENDING, AWAITING, CANCELLED):
        for n, order in enumerate(itertools.permutations((PROCESSING, PAID, GIVEN_BACK))):
            placed = await place(database18, start, user=f"{start}-{n}")
            for effect in order:
                await ledger18.receive(placed.event(effect))
            assert await order_state(database18, placed) == ("refunded", "refunded", HELD), (start, order)
    assert "mismatch" not in await event_outcomes(database18)


async def test_late_events_do_not_change_a_completed_order(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger18.receive(placed.event())
    for effect in (EXPIRED, FAILED, PROCESSING, PAID, NONE):
        assert await ledger18.receive(placed.event(effect)) is Received.NO_CHANGE
    assert await order_state(database18, placed) == ("completed", "completed", 0)


async def test_same_event_again_is_a_duplicate(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    paid, expired = placed.event(), placed.event(EXPIRED)
    assert [await ledger18.receive(event) for event in (paid, paid, expired, expired)] == [
        Received.APPLIED,
        Received.DUPLICATE,
        Received.NO_CHANGE,
        Received.DUPLICATE,
    ]
    assert await event_outcomes(database18) == ["applied", "no_change"]


async def test_lookup_result_is_decided_anew_each_time(database18: Database) -> None:
    """A lookup result is no copy of an event: the reason to refuse it may have gone."""
    placed = await place(database18)
    looked = placed.event(lookup=True)
    async with open_ledger(database18.runtime_url, sovereign="muscat.example.org") as ledger:
        for again in (Received.FOREIGN, Received.DUPLICATE):
            assert await ledger.receive(replace(looked, sovereign="salalah.example.org")) is again
        assert await ledger.receive(replace(looked, amount_minor=1)) is Received.MISMATCH
        assert await ledger.receive(replace(looked, amount_minor=1)) is Received.DUPLICATE
        assert await ledger.receive(looked) is Received.APPLIED
        assert await ledger.receive(looked) is Received.DUPLICATE
    assert await order_state(database18, placed) == ("completed", "completed", 0)
    assert await event_outcomes(database18) == ["applied"]


@pytest.mark.parametrize(
    "named",
    [
        {"session_id": None, "order_id": None},
        {"session_id": "cs_of_nobody", "order_id": "42"},
        {"session_id": None, "order_id": "00000000-0000-4000-8000-00000000000f"},
    ],
)
async def test_events_without_purchase_are_kept_as_unknown(
    ledger18: Ledger, database18: Database, named: dict[str, Any]
) -> None:
    placed = await place(database18)
    event = placed.event(**named)
    assert await ledger18.receive(event) is Received.UNKNOWN
    assert await ledger18.receive(event) is Received.DUPLICATE
    assert await order_state(database18, placed) == ("awaiting_payment", "pending", 0)
    assert await rows(database18, "SELECT outcome, session_id, order_id, raw FROM vouchers.webhook_event") == [
        ("unknown", named["session_id"], named["order_id"], event.raw)
    ]


async def test_events_of_another_sovereign_are_kept_without_effect(database18: Database) -> None:
    placed = await place(database18)
    async with open_ledger(database18.runtime_url, sovereign="muscat.example.org") as ledger:
        assert await ledger.receive(placed.event(sovereign="salalah.example.org")) is Received.FOREIGN
        assert await order_state(database18, placed) == ("awaiting_payment", "pending", 0)
        # A charge carries no name: what it names must be ours, then.
        assert await ledger.receive(placed.event(sovereign="muscat.example.org")) is Received.APPLIED
        assert await ledger.receive(placed.event(GIVEN_BACK, sovereign=None)) is Received.APPLIED
    assert await event_outcomes(database18) == ["foreign", "applied", "applied"]
    assert await verify(database18.runtime_url) == []


async def test_subscription_written_by_the_go_service_is_used(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    event = placed.event()
    await rows(
        database18,
        "INSERT INTO subscriptions (customer_id, tenant_id, stripe_subscription_id, plan_id) VALUES (%s, 't', %s, 'l')",
        placed.customer,
        event.subscription_id,
    )
    assert await ledger18.receive(event) is Received.APPLIED
    assert await rows(database18, "SELECT status FROM subscriptions") == [("active",)]
    await ledger18.receive(placed.event(GIVEN_BACK))
    assert await rows(database18, "SELECT status FROM subscriptions") == [("canceled",)]


async def test_event_that_cannot_be_stored_is_rejected(ledger18: Ledger, database18: Database) -> None:
    placed = await place(database18)
    with pytest.raises(RequestRejectedError):
        await ledger18.receive(placed.event(event_id="evt\0"))
    assert await event_outcomes(database18) == []

"""What a payment's event does to a purchase: once, in whatever order events come, and together with being kept."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.drive import opened, rows
from tests.ledger.go_service import GoService
from tests.ledger.purchase_rows import Placed, look, outcomes, place
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase_types import PaymentEffect, PurchaseState, Received
from voucher_operator.ledger.verify import verify
from voucher_operator.resources.errors import RequestRejectedError

PENDING, AWAITING, COMPLETED, CANCELLED, ROLLED_BACK, REFUNDED = PurchaseState
PAID, PROCESSING, EXPIRED, FAILED, GIVEN_BACK, NONE = PaymentEffect
HELD = 10_500

CHANGES = {
    (PENDING, PAID): (COMPLETED, "completed", 0),
    (PENDING, EXPIRED): (CANCELLED, "cancelled", HELD),
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


@pytest.fixture
async def ledger(database18: Database) -> AsyncIterator[Ledger]:
    """A ledger on one version; after the test every invariant must hold."""
    async with opened(database18.runtime_url) as door:
        yield door
    assert await verify(database18.admin_url) == []


async def broken(database: Database) -> list[tuple[str, str]]:
    """Invariant and subject of what `verify` finds."""
    return [(one.invariant, one.subject) for one in await verify(database.runtime_url)]


async def settle_by_hand(database: Database) -> None:
    """What a human does who has looked at a payment that does not fit."""
    await rows(database, "UPDATE vouchers.inbox SET outcome = 'no_change' WHERE outcome = 'mismatch'")


async def entries(database: Database, placed: Placed) -> list[tuple[int, int, str]]:
    return [
        (row[0], row[1], row[2])
        for row in await rows(
            database,
            "SELECT amount_omr, amount_minor, reason FROM credit_ledger WHERE order_id = %s ORDER BY created_at",
            placed.order,
        )
    ]


async def test_every_effect_in_every_state(ledger: Ledger, database18: Database) -> None:
    expected, seen = {}, {}
    for state, effect in itertools.product(PurchaseState, PaymentEffect):
        placed = await place(database18, state, user=f"{state}-{effect}")
        before = await look(database18, placed)
        if state is ROLLED_BACK and effect is PAID:
            expected[state, effect] = (Received.MISMATCH, *before)
        elif (state, effect) in CHANGES:
            expected[state, effect] = (Received.APPLIED, *CHANGES[state, effect])
        else:
            expected[state, effect] = (Received.NO_CHANGE, *before)
        seen[state, effect] = (await ledger.receive(placed.event(effect)), *await look(database18, placed))
    assert seen == expected
    assert {invariant for invariant, _ in await broken(database18)} == {"inbox"}
    await settle_by_hand(database18)


async def test_paid(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    event = placed.event()
    assert await ledger.receive(event) is Received.APPLIED
    assert await rows(
        database18,
        "SELECT reason, session_id, subscription_id, settled_at = updated_at, settled_at > placed_at "
        "FROM vouchers.purchase",
    ) == [(None, placed.session, event.subscription_id, True, True)]
    assert await rows(
        database18, "SELECT customer_id::text, tenant_id, stripe_subscription_id, plan_id, status FROM subscriptions"
    ) == [(placed.customer, "kestrel-pharmacy", event.subscription_id, "l", "active")]
    assert await entries(database18, placed) == [(-11, -HELD, "order-payment")]
    assert await rows(database18, "SELECT type, raw, session_id, order_id, outcome FROM vouchers.inbox") == [
        ("test.paid", b'{"id": "evt"}', placed.session, placed.order, "applied")
    ]
    (told,) = await ledger.outbox_pending(10)
    assert (told.type, told.tenant_id, told.metadata) == ("order.placed", "kestrel-pharmacy", {})
    assert told.data == {
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


async def test_paid_before_the_session_was_noted(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18, PENDING)
    event = placed.event()
    assert await ledger.receive(event) is Received.APPLIED
    assert await rows(
        database18,
        "SELECT p.session_id, o.stripe_session_id FROM vouchers.purchase p JOIN orders o ON o.id = p.order_id",
    ) == [(event.session_id, event.session_id)]


@pytest.mark.parametrize("named", [{"order_id": None}, {"session_id": None}, {"order_id": "no uuid"}])
async def test_session_or_order_finds_the_purchase(ledger: Ledger, database18: Database, named: dict[str, Any]) -> None:
    placed = await place(database18)
    await place(database18, user="somebody else")
    assert await ledger.receive(placed.event(**named)) is Received.APPLIED
    assert (await look(database18, placed))[0] == "completed"
    assert await rows(database18, "SELECT order_id FROM vouchers.inbox") == [(placed.order,)]


@pytest.mark.parametrize(("effect", "reason"), [(EXPIRED, "CheckoutExpired"), (FAILED, "PaymentFailed")])
async def test_a_checkout_that_comes_to_nothing(
    ledger: Ledger, database18: Database, effect: PaymentEffect, reason: str
) -> None:
    placed = await place(database18, credit=20_000)
    assert await ledger.receive(placed.event(effect)) is Received.APPLIED
    assert await entries(database18, placed) == [(-11, -HELD, "order-payment"), (11, HELD, "order-payment")]
    assert await look(database18, placed) == ("cancelled", "cancelled", 20_000)
    assert await rows(
        database18,
        "SELECT p.reason, e.amount_minor FROM vouchers.purchase p JOIN credit_ledger e ON e.id = p.release_entry_id",
    ) == [(reason, HELD)]
    assert await ledger.outbox_pending(10) == []


async def test_a_full_refund_gives_the_credit_back_once(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger.receive(placed.event())
    assert await ledger.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await ledger.receive(placed.event(GIVEN_BACK)) is Received.NO_CHANGE
    assert await entries(database18, placed) == [(-11, -HELD, "order-payment"), (11, HELD, "order-payment")]
    assert await look(database18, placed) == ("refunded", "refunded", HELD)
    assert await rows(database18, "SELECT status, updated_at > created_at FROM subscriptions") == [("canceled", True)]
    assert await rows(database18, "SELECT reason FROM vouchers.purchase") == [("Refunded",)]


async def test_a_refund_where_no_subscription_was_named(ledger: Ledger, database18: Database) -> None:
    placed, other = await place(database18), await place(database18, user="other")
    for one in (placed, other):
        await ledger.receive(one.event(subscription_id=None))
    await ledger.receive(placed.event(GIVEN_BACK))
    assert await rows(database18, "SELECT status FROM subscriptions WHERE id = %s", placed.order) == [("canceled",)]
    assert await rows(database18, "SELECT status FROM subscriptions WHERE id = %s", other.order) == [("active",)]


async def test_without_credit_nothing_is_held_or_released(ledger: Ledger, database18: Database) -> None:
    for effect, state in ((PAID, "completed"), (EXPIRED, "cancelled"), (GIVEN_BACK, "refunded")):
        placed = await place(database18, credit=0, held=0, due=50_000, user=effect)
        assert await ledger.receive(placed.event(effect)) is Received.APPLIED
        assert (await look(database18, placed))[0] == state
        assert await entries(database18, placed) == []


async def test_events_come_in_any_order(ledger: Ledger, database18: Database) -> None:
    """Paid and refunded: the end is the same, also when the checkout had been given up, or was not noted yet."""
    for start in (PENDING, AWAITING, CANCELLED):
        for n, order in enumerate(itertools.permutations((PROCESSING, PAID, GIVEN_BACK))):
            placed = await place(database18, start, user=f"{start}-{n}")
            for effect in order:
                await ledger.receive(placed.event(effect))
            assert await look(database18, placed) == ("refunded", "refunded", HELD), (start, order)
    assert "mismatch" not in await outcomes(database18)


async def test_an_end_that_comes_too_late(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger.receive(placed.event())
    for effect in (EXPIRED, FAILED, PROCESSING, PAID, NONE):
        assert await ledger.receive(placed.event(effect)) is Received.NO_CHANGE
    assert await look(database18, placed) == ("completed", "completed", 0)


async def test_the_same_event_again(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    paid, expired = placed.event(), placed.event(EXPIRED)
    assert [await ledger.receive(event) for event in (paid, paid, expired, expired)] == [
        Received.APPLIED,
        Received.DUPLICATE,
        Received.NO_CHANGE,
        Received.DUPLICATE,
    ]
    assert await outcomes(database18) == ["applied", "no_change"]


@pytest.mark.parametrize(
    "named",
    [
        {"session_id": None, "order_id": None},
        {"session_id": "cs_of_nobody", "order_id": "42"},
        {"session_id": None, "order_id": "00000000-0000-4000-8000-00000000000f"},
    ],
)
async def test_events_for_nobody_are_kept(ledger: Ledger, database18: Database, named: dict[str, Any]) -> None:
    placed = await place(database18)
    event = placed.event(**named)
    assert await ledger.receive(event) is Received.UNKNOWN
    assert await ledger.receive(event) is Received.DUPLICATE
    assert await look(database18, placed) == ("awaiting_payment", "pending", 0)
    assert await rows(database18, "SELECT outcome, session_id, order_id, raw FROM vouchers.inbox") == [
        ("unknown", named["session_id"], named["order_id"], event.raw)
    ]


async def test_another_sovereigns_events_are_kept_without_effect(database18: Database) -> None:
    placed = await place(database18)
    door = Ledger(lambda: database18.runtime_url, sovereign="muscat.example.org")
    await door.open()
    try:
        assert await door.receive(placed.event(sovereign="salalah.example.org")) is Received.FOREIGN
        assert await look(database18, placed) == ("awaiting_payment", "pending", 0)
        # A charge carries no name: what it names must be ours, then.
        assert await door.receive(placed.event(sovereign="muscat.example.org")) is Received.APPLIED
        assert await door.receive(placed.event(GIVEN_BACK, sovereign=None)) is Received.APPLIED
    finally:
        await door.close()
    assert await outcomes(database18) == ["foreign", "applied", "applied"]
    assert await verify(database18.runtime_url) == []


async def test_what_was_paid_is_not_what_was_due(ledger: Ledger, database18: Database) -> None:
    for state in (PENDING, AWAITING, CANCELLED):
        for n, amount in enumerate((0, 39_490, 39_510)):
            placed = await place(database18, state, user=f"{state}-{n}")
            before = await look(database18, placed)
            assert await ledger.receive(placed.event(amount_minor=amount)) is Received.MISMATCH
            assert await look(database18, placed) == before
    assert len(await broken(database18)) == 9
    await settle_by_hand(database18)


async def test_an_event_that_names_no_amount(ledger: Ledger, database18: Database) -> None:
    assert await ledger.receive((await place(database18)).event(amount_minor=None)) is Received.APPLIED


async def test_a_second_checkout_of_one_order(ledger: Ledger, database18: Database) -> None:
    """Its money is for a human, before and after the first one's; that it ends is nothing to the order."""
    placed = await place(database18)
    second = {"session_id": "cs_second"}
    assert await ledger.receive(placed.event(EXPIRED, **second)) is Received.NO_CHANGE
    assert await ledger.receive(placed.event(PAID, **second)) is Received.MISMATCH
    assert await ledger.receive(placed.event()) is Received.APPLIED
    assert await broken(database18) == [("inbox", f"redemption {placed.key}, customer {placed.customer}")]
    assert await ledger.receive(placed.event(GIVEN_BACK, **second)) is Received.NO_CHANGE
    assert await look(database18, placed) == ("completed", "completed", 0)


async def test_paid_after_it_was_cancelled_takes_the_credit_again(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18, credit=11_000)
    await ledger.receive(placed.event(EXPIRED))
    assert await ledger.receive(placed.event()) is Received.APPLIED
    assert await look(database18, placed) == ("completed", "completed", 500)
    assert [minor for _, minor, _ in await entries(database18, placed)] == [-HELD, HELD, -HELD]
    assert await rows(
        database18,
        "SELECT p.release_entry_id, e.amount_minor "
        "FROM vouchers.purchase p JOIN credit_ledger e ON e.id = p.hold_entry_id "
        "WHERE e.created_at = (SELECT max(created_at) FROM credit_ledger)",
    ) == [(None, -HELD)]
    assert await ledger.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await look(database18, placed) == ("refunded", "refunded", 11_000)


async def test_paid_after_it_was_cancelled_and_the_credit_spent(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    await ledger.receive(placed.event(EXPIRED))
    async with GoService.connect(database18.owner_url) as go:
        await go.spend(await go.customer(placed.user), 1)
    assert await ledger.receive(placed.event()) is Received.MISMATCH
    assert await look(database18, placed) == ("cancelled", "cancelled", 9_500)
    assert await broken(database18) == [("inbox", f"redemption {placed.key}, customer {placed.customer}")]
    # The human refunds it, and that settles it.
    assert await ledger.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await look(database18, placed) == ("refunded", "refunded", 9_500)
    assert await ledger.receive(placed.event()) is Received.NO_CHANGE


async def test_paid_after_it_was_rolled_back(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18, ROLLED_BACK)
    assert await ledger.receive(placed.event()) is Received.MISMATCH
    assert await broken(database18) == [("inbox", f"redemption {placed.key}, customer {placed.customer}")]
    assert await ledger.receive(placed.event(GIVEN_BACK)) is Received.APPLIED
    assert await broken(database18) == []
    # And when the refund comes first.
    other = await place(database18, ROLLED_BACK, user="other")
    assert await ledger.receive(other.event(GIVEN_BACK)) is Received.APPLIED
    assert await ledger.receive(other.event()) is Received.NO_CHANGE
    for one in (placed, other):
        assert await look(database18, one) == ("rolled_back", "failed", HELD)


async def test_the_go_service_has_written_the_subscription(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    event = placed.event()
    await rows(
        database18,
        "INSERT INTO subscriptions (customer_id, tenant_id, stripe_subscription_id, plan_id) VALUES (%s, 't', %s, 'l')",
        placed.customer,
        event.subscription_id,
    )
    assert await ledger.receive(event) is Received.APPLIED
    assert await rows(database18, "SELECT status FROM subscriptions") == [("active",)]
    await ledger.receive(placed.event(GIVEN_BACK))
    assert await rows(database18, "SELECT status FROM subscriptions") == [("canceled",)]


async def test_a_value_that_cannot_be_stored(ledger: Ledger, database18: Database) -> None:
    placed = await place(database18)
    with pytest.raises(RequestRejectedError):
        await ledger.receive(placed.event(event_id="evt\0"))
    assert await outcomes(database18) == []

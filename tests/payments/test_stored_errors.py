"""A 500 that Stripe has stored for an idempotency key, and a key that was used with another content.

What the key has made is looked for, then the next key is used; an order never has two sessions that can be paid.
"""

import asyncio

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import Fault, ScriptedStripe
from tests.ledger.helpers import holding
from tests.ledger.test_payments_concurrent import waiting
from tests.payments.helpers import (
    COUPONS,
    CUSTOMERS,
    SESSIONS,
    make_overdue,
    open_checkout,
    place,
    reload_purchase,
    settings,
    wait_reached,
)
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase, PurchaseState
from voucher_operator.payments import stripe_calls
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.payments.stripe_errors import unreachable
from voucher_operator.resources.errors import PaymentProcessorUnavailableError
from voucher_operator.resources.reasons import Reason

STEPS = [CUSTOMERS, COUPONS, SESSIONS]


async def fail(checkout: Checkout, stripe: ScriptedStripe, purchase: Purchase, path: str, *faults: Fault) -> None:
    """Have a step fail at Stripe so often."""
    stripe.fail(path, *faults)
    for _ in faults:
        with pytest.raises(PaymentProcessorUnavailableError):
            await checkout.advance(purchase)


def made(stripe: ScriptedStripe) -> tuple[int, int, int]:
    """How many customers, coupons and sessions there are."""
    return len(stripe.customers), len(stripe.coupons), len(stripe.sessions)


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.BROKEN_AFTER])
@pytest.mark.parametrize("path", STEPS)
async def test_stored_error_is_left_behind_and_nothing_is_made_twice(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe, path: str, fault: Fault
) -> None:
    """Whether the key that answers 500 for ever has made the object or not."""
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, path, fault)
    advanced = await checkout.advance(purchase)
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert made(stripe) == (1, 1, 1)
    assert advanced.session_id == stripe.only_session()["id"]


@pytest.mark.parametrize("path", STEPS)
async def test_lost_answer_to_the_next_key_makes_nothing_twice(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe, path: str
) -> None:
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, path, Fault.BROKEN)
    # A stored answer and a search are not affected by the first faults.
    stripe.fail(path, *[Fault.BROKEN] * (1 if path == COUPONS else 2), Fault.CUT_AFTER)
    with pytest.raises(PaymentProcessorUnavailableError):
        await checkout.advance(purchase)
    assert (await checkout.advance(purchase)).state is PurchaseState.AWAITING_PAYMENT
    assert made(stripe) == (1, 1, 1)


async def test_several_stored_errors_are_left_behind(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """Stripe fails for a while: each try uses one more key, and the keys before it are asked again."""
    purchase = await place(ledger, database18)
    for used_up in range(4):
        stripe.fail(SESSIONS, *[Fault.BROKEN] * (2 * used_up + 1))
        with pytest.raises(PaymentProcessorUnavailableError):
            await checkout.advance(purchase)
    assert (await checkout.advance(purchase)).state is PurchaseState.AWAITING_PAYMENT
    assert made(stripe) == (1, 1, 1)


async def test_stored_errors_of_every_key_end_at_the_deadline(
    checkout: Checkout,
    ledger: Ledger,
    database18: Database,
    stripe: ScriptedStripe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stripe_calls, "_KEYS", 2)
    purchase = await place(ledger, database18)
    for used_up in range(3):
        stripe.fail(SESSIONS, *[Fault.BROKEN] * (2 * used_up + 1))
        with pytest.raises(PaymentProcessorUnavailableError):
            await checkout.advance(purchase)
    stripe.clear_faults()
    await make_overdue(database18, purchase)
    ended = await checkout.advance(await reload_purchase(ledger, purchase))
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_PROCESSOR_UNAVAILABLE)
    assert await ledger.balance(purchase.user_id) == 10_000


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.BROKEN, Fault.BROKEN_AFTER])
async def test_changed_settings_between_tries_do_not_create_a_second_session(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe, fault: Fault
) -> None:
    """Stripe refuses the key with new parameters: what it has made is used; if it has made nothing, the next key."""
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, fault)
    moved = settings(stripe.url, checkout_success_url="https://new.example.com/paid")
    async with open_checkout(ledger, moved) as other:
        advanced = await other.advance(await reload_purchase(ledger, purchase))
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert advanced.session_id == stripe.only_session()["id"]


async def test_session_that_appears_after_it_was_looked_for_is_expired(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """The used up key makes its session late: the customer gets the URL of one that can be paid, not of two."""
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, Fault.BROKEN)
    pause = stripe.pause(SESSIONS, when=lambda: len(stripe.sessions) == 1)
    advancing = asyncio.create_task(checkout.advance(purchase))
    await wait_reached(pause)
    late = stripe.second_session(stripe.only_session()["id"])["id"]
    pause.released.set()
    advanced = await advancing
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert advanced.session_id != late
    assert [one["status"] for one in stripe.sessions.values()] == ["open", "expired"]


async def test_two_sessions_that_are_found_leave_one(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """Of a used up key and of another one, whose process has died before it recorded its session."""
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, Fault.BROKEN_AFTER)
    stripe.second_session(stripe.only_session()["id"])
    advanced = await checkout.advance(purchase)
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert [name for name, one in stripe.sessions.items() if one["status"] == "open"] == [advanced.session_id]


async def test_two_replicas_after_a_stored_error_make_one_session(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """The second one finds the session of the first one, whose request has no answer yet."""
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, Fault.BROKEN)
    pause = stripe.pause(SESSIONS, when=lambda: len(stripe.sessions) == 1)
    first = asyncio.create_task(checkout.advance(purchase))
    await wait_reached(pause)
    async with open_checkout(ledger, settings(stripe.url)) as other:
        second = await other.advance(purchase)
    pause.released.set()
    assert await first == second
    assert made(stripe) == (1, 1, 1)


async def test_two_replicas_with_different_sessions_leave_the_recorded_one(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """Each has a session before either is recorded: what is recorded decides which one can be paid."""
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, Fault.BROKEN)
    purchase = await reload_purchase(ledger, purchase)
    async with open_checkout(ledger, settings(stripe.url)) as other:
        async with holding(database18, "SELECT FROM vouchers.purchase FOR UPDATE") as holder:
            first = asyncio.create_task(checkout.advance(purchase))
            await waiting(database18, 1)
            made = stripe.only_session()["id"]
            late = stripe.second_session(made)["id"]
            stripe.sessions[made] = stripe.sessions.pop(made)  # listed after the late one, which the other one takes
            second = asyncio.create_task(other.advance(purchase))
            await waiting(database18, 2)
            await holder.rollback()
        advanced = await first
        assert await second == advanced
    assert advanced.session_id in (made, late)
    assert [name for name, one in stripe.sessions.items() if one["status"] == "open"] == [advanced.session_id]


async def test_expired_session_that_is_found_is_not_the_customers(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, Fault.BROKEN_AFTER)
    expired = stripe.only_session()
    expired["status"] = "expired"
    advanced = await checkout.advance(purchase)
    assert advanced.state is PurchaseState.AWAITING_PAYMENT
    assert advanced.session_id not in (None, expired["id"])


async def test_error_while_others_are_looked_for_keeps_the_recorded_session(
    checkout: Checkout,
    ledger: Ledger,
    database18: Database,
    stripe: ScriptedStripe,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    purchase = await place(ledger, database18)
    await fail(checkout, stripe, purchase, SESSIONS, Fault.BROKEN)

    async def unreachable_stripe(_: Purchase) -> None:
        raise unreachable()

    monkeypatch.setattr(checkout._stripe, "open_sessions", unreachable_stripe)
    advanced = await checkout.advance(purchase)
    assert (advanced.state, advanced.session_id) == (PurchaseState.AWAITING_PAYMENT, stripe.only_session()["id"])
    assert "a checkout may stay open until it expires" in caplog.text

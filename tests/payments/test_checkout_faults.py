"""Faults of Stripe: a transient one is retried and creates each object once, a lasting one rolls the order back."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import Database
from testbed.scripted_stripe import KEY, Fault, ScriptedStripe
from tests.ledger.helpers import issue, rows
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from tests.payments.helpers import (
    COUPONS,
    CUSTOMERS,
    LINES,
    SESSIONS,
    lose_session_answer,
    make_overdue,
    open_checkout,
    place,
    reload_purchase,
    settings,
    wait_reached,
)
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PurchaseState, Received
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.errors import PaymentProcessorUnavailableError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

PASSING = [
    Fault.BUSY,
    Fault.UNAVAILABLE,
    Fault.IN_USE,
    Fault.CUT,
    Fault.CUT_AFTER,
    Fault.EMPTY,
    Fault.GARBAGE,
    Fault.GATEWAY,
]
LASTING = [
    (SESSIONS, Fault.UNAUTHORIZED),
    (SESSIONS, Fault.FORBIDDEN),
    (SESSIONS, Fault.DECLINED),
    (SESSIONS, Fault.INVALID),
    (COUPONS, Fault.INVALID),
    (CUSTOMERS, Fault.UNAUTHORIZED),
]


@pytest.mark.parametrize("path", [CUSTOMERS, COUPONS, SESSIONS])
async def test_transient_fault_is_retried_and_creates_once(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe, path: str
) -> None:
    purchase = await place(ledger, database18)
    stripe.fail(path, *PASSING)
    for fault in PASSING:
        with pytest.raises(PaymentProcessorUnavailableError) as caught:
            await checkout.advance(purchase)
        assert "req_" not in caught.value.message, fault
        assert "@" not in caught.value.message, fault
        assert (await reload_purchase(ledger, purchase)).state is PurchaseState.PENDING, fault
    assert (await checkout.advance(purchase)).state is PurchaseState.AWAITING_PAYMENT
    assert (len(stripe.customers), len(stripe.coupons), len(stripe.sessions)) == (1, 1, 1)


async def test_timeout_is_retried_with_the_same_session(
    ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await place(ledger, database18)
    stripe.fail(SESSIONS, Fault.SILENT_AFTER)
    async with open_checkout(ledger, settings(stripe.url, stripe_timeout=0.3)) as hasty:
        with pytest.raises(PaymentProcessorUnavailableError, match="did not respond in time"):
            await hasty.advance(purchase)
        assert (await hasty.advance(purchase)).session_id == stripe.only_session()["id"]


@pytest.mark.parametrize(("path", "fault"), LASTING)
async def test_refusal_by_stripe_rolls_the_order_back(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe, path: str, fault: Fault
) -> None:
    """The code is redeemable again, and the order is failed."""
    await issue(database18, "CODE", 10, max_redemptions=1)
    request = purchase_request(50_000, "CODE", lines=(replace(LINES[0], price_minor=50_000),))
    purchase = await place_purchase(ledger, request)
    stripe.fail(path, fault)
    rolled_back = await checkout.advance(purchase)
    assert (rolled_back.state, rolled_back.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_REJECTED)
    assert rolled_back == await reload_purchase(ledger, purchase)
    assert await rows(database18, "SELECT times_redeemed FROM promo_codes") == [(0,)]
    assert await rows(database18, "SELECT status FROM orders") == [("failed",)]
    assert await ledger.balance(purchase.user_id) == 0
    assert await checkout.advance(rolled_back) == rolled_back


async def test_overdue_order_expires_its_session(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """The session was made, its answer lost, and nobody came back in time."""
    purchase = await place(ledger, database18)
    await lose_session_answer(checkout, stripe, purchase)
    await make_overdue(database18, purchase)
    ended = await checkout.advance(await reload_purchase(ledger, purchase))
    assert ended.state is PurchaseState.ROLLED_BACK
    assert stripe.only_session()["status"] == "expired"
    assert len(stripe.sessions) == 1


async def test_session_lost_by_a_crash_expires_and_the_order_is_rolled_back(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """The process died before the note and came back a day later: nobody had the URL, and the code is not used up."""
    await issue(database18)
    purchase = await place_purchase(ledger, purchase_request(19_000, "CODE", lines=LINES))
    await lose_session_answer(checkout, stripe, purchase)
    expired = await checkout.payment_event(stripe.expire(stripe.only_session()["id"]), b"{}")
    assert await checkout.receive(expired) is Received.NO_CHANGE
    await make_overdue(database18, purchase)
    ended = await checkout.advance(await reload_purchase(ledger, purchase))
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_PROCESSOR_UNAVAILABLE)
    assert await rows(database18, "SELECT times_redeemed FROM promo_codes") == [(0,)]


async def test_payment_of_a_session_that_could_not_be_expired_is_a_mismatch(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await place(ledger, database18)
    await lose_session_answer(checkout, stripe, purchase)
    await make_overdue(database18, purchase)
    stripe.fail(SESSIONS, Fault.UNAUTHORIZED)
    assert (await checkout.advance(await reload_purchase(ledger, purchase))).state is PurchaseState.ROLLED_BACK
    session = stripe.only_session()
    assert session["status"] == "open"
    paid = await checkout.payment_event(stripe.pay(session["id"]), b"{}")
    assert await checkout.receive(paid) is Received.MISMATCH
    given_back = await checkout.payment_event(stripe.refund(session["id"]), b"{}")
    assert await checkout.receive(given_back) is Received.APPLIED


async def test_other_price_at_stripe_rolls_the_order_back(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    stripe.prices["price_l"] = 15_000
    placed = await place(ledger, database18, lines=(replace(LINES[0], stripe_price_id="price_l"), *LINES[1:]))
    ended = await checkout.advance(placed)
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_REJECTED)
    assert stripe.only_session()["status"] == "expired"
    assert await ledger.balance(placed.user_id) == 10_000


async def test_removed_stripe_key_rolls_the_order_back(
    ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await place(ledger, database18)
    async with open_checkout(ledger, settings(stripe.url, stripe_api_key="")) as unconfigured:
        ended = await unconfigured.advance(purchase)
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED)
    assert stripe.requests == []


@pytest.mark.parametrize("key", ["sk_test_ключ", "sk_test a", "sk_test\na", "sk_test\x7f"])
async def test_key_invalid_in_a_header_rolls_the_order_back(
    ledger: Ledger, database18: Database, stripe: ScriptedStripe, key: str
) -> None:
    """A lasting fault: something else was pasted."""
    purchase = await place(ledger, database18)
    async with open_checkout(ledger, settings(stripe.url, stripe_api_key=key)) as mistaken:
        ended = await mistaken.advance(purchase)
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.PAYMENT_REJECTED)
    assert stripe.requests == []


async def test_key_file_may_come_late_and_rotate(
    ledger: Ledger, database18: Database, stripe: ScriptedStripe, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    given = settings(stripe.url, stripe_api_key="", stripe_api_key_file=file)
    async with open_checkout(ledger, given) as checkout:
        assert checkout.fault is not None
        file.write_text(f"{KEY}\n")
        assert checkout.fault is None
        assert (await checkout.advance(await place(ledger, database18))).state is PurchaseState.AWAITING_PAYMENT
        stripe.key = "sk_test_next"
        file.write_text("sk_test_next")
        assert (await checkout.advance(await place(ledger, database18))).state is PurchaseState.AWAITING_PAYMENT


async def test_concurrent_advance_creates_one_session(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """The second gets the error that the key is in use, and is retried."""
    purchase = await place(ledger, database18)
    pause = stripe.pause(SESSIONS)
    first = asyncio.create_task(checkout.advance(purchase))
    await wait_reached(pause)
    async with open_checkout(ledger, settings(stripe.url)) as other:
        with pytest.raises(PaymentProcessorUnavailableError):
            await other.advance(purchase)
        pause.released.set()
        assert await other.advance(purchase) == await first
    assert len(stripe.sessions) == 1


async def test_rollback_during_the_stripe_call_expires_the_session(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    """Its session did not exist yet at the rollback: the process that creates it expires it."""
    purchase = await place(ledger, database18)
    pause = stripe.pause(SESSIONS)
    advancing = asyncio.create_task(checkout.advance(purchase))
    await wait_reached(pause)
    await ledger.compensate(purchase.key, Reason.ABANDONED)
    pause.released.set()
    ended = await advancing
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.ABANDONED)
    assert stripe.only_session()["status"] == "expired"


async def test_abandoned_order_expires_its_session(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    purchase = await place(ledger, database18)
    await lose_session_answer(checkout, stripe, purchase)
    ended = await checkout.cancel_pending(purchase.key)
    assert ended is not None
    assert (ended.state, ended.reason) == (PurchaseState.ROLLED_BACK, Reason.ABANDONED)
    assert stripe.only_session()["status"] == "expired"
    assert await checkout.cancel_pending(purchase.key) == ended


async def test_abandon_of_an_awaiting_or_unknown_order_changes_nothing(
    checkout: Checkout, ledger: Ledger, database18: Database, stripe: ScriptedStripe
) -> None:
    awaiting = await checkout.advance(await place(ledger, database18))
    assert await checkout.cancel_pending(awaiting.key) == awaiting
    assert stripe.only_session()["status"] == "open"
    assert await checkout.cancel_pending(Key("billing/nobody")) is None

"""Disputes and failed refunds as people see them: status, Events, and the gauge of payments that need a person."""

from typing import Any

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.stripe_fixture import order
from voucher_operator import telemetry
from voucher_operator.kube.errors import ForbiddenError
from voucher_operator.ledger.purchase.types import Received


async def paid(harness: ControllerHarness) -> str:
    """Place an order that a card pays in part, and pay it; return its session."""
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    session = str((await harness.purchase("kestrel")).session_id)
    await settle(harness, harness.stripe_fixture.stripe.pay(session))
    await delivered(harness)
    return session


async def delivered(harness: ControllerHarness) -> dict[str, object]:
    """Bring the end of the purchase into the status; return the status."""
    await harness.deliver()
    status = await harness.reconcile("kestrel")
    await harness.deliver()
    return status


async def receive(harness: ControllerHarness, event: dict[str, object]) -> Received:
    return await harness.checkout.receive(await harness.checkout.payment_event(event, b"{}"))


def unsettled(kind: str) -> float | None:
    return telemetry.REGISTRY.get_sample_value("voucher_operator_unsettled_payments", {"kind": kind})


async def test_dispute_is_an_event_until_it_is_lost(harness: ControllerHarness) -> None:
    session = await paid(harness)
    stripe, reporter = harness.stripe_fixture.stripe, harness.parts.payment_reporter
    assert await receive(harness, stripe.dispute(session)) is Received.NO_CHANGE
    for _ in range(2):
        await reporter.report()
    assert (await harness.events("kestrel")).count("PaymentDisputed") == 1
    await reporter.count()
    assert (unsettled("dispute"), unsettled("outstanding")) == (1, 0)
    assert await receive(harness, stripe.dispute(session, "lost", "closed")) is Received.APPLIED
    await reporter.report()
    status = await delivered(harness)
    assert (status["state"], reason(status)) == ("Redeemed", ("False", "PaymentLost"))
    assert reason(status, "OrderPlaced") == reason(status, "PaymentSettled") == ("False", "PaymentLost")
    assert (await harness.events("kestrel")).count("PaymentLost") == 1
    await reporter.count()
    assert (unsettled("dispute"), unsettled("outstanding")) == (0, 1)
    await harness.sql("UPDATE vouchers.payment SET settled_minor = outstanding_minor")
    await reporter.count()
    assert unsettled("outstanding") == 0


async def test_dispute_that_is_won_is_an_event_and_changes_no_status(harness: ControllerHarness) -> None:
    session = await paid(harness)
    before = dict(harness.watch("kestrel"))
    await receive(harness, harness.stripe_fixture.stripe.dispute(session, "won", "closed"))
    await harness.parts.payment_reporter.report()
    assert "DisputeClosed" in await harness.events("kestrel")
    await harness.deliver()
    assert harness.watch("kestrel") == before


async def test_namespace_that_cannot_be_read_is_left_out_for_some_time(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disputes would take the places of all others', and each would be a call and a line of the log."""
    session = await paid(harness)
    await receive(harness, harness.stripe_fixture.stripe.dispute(session))
    reporter, calls = harness.parts.payment_reporter, []
    read = reporter.api.get

    async def refuse(*arguments: Any) -> None:
        calls.append(arguments)
        raise ForbiddenError("no permission")

    monkeypatch.setattr(reporter.api, "get", refuse)
    for _ in range(3):
        await reporter.report()
    assert len(calls) == 1
    monkeypatch.setattr(reporter.api, "get", read)
    reporter._paused.clear()
    await reporter.report()
    assert "PaymentDisputed" in await harness.events("kestrel")
    await receive(harness, harness.stripe_fixture.stripe.dispute(session, "won", "closed"))


async def test_dispute_of_a_deleted_redemption_is_reported_to_nobody(harness: ControllerHarness) -> None:
    session = await paid(harness)
    harness.remove("kestrel")
    await receive(harness, harness.stripe_fixture.stripe.dispute(session))
    for _ in range(2):
        await harness.parts.payment_reporter.report()
    assert await harness.sql("SELECT reported_status FROM vouchers.dispute") == [("needs_response",)]
    await receive(harness, harness.stripe_fixture.stripe.dispute(session, "won", "closed"))


async def test_dispute_is_reported_when_the_api_server_answers_again(harness: ControllerHarness) -> None:
    session = await paid(harness)
    await receive(harness, harness.stripe_fixture.stripe.dispute(session))
    path = "GET /apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions/kestrel"
    harness.server.faults[path] = (500, "broken")
    await harness.parts.payment_reporter.report()
    assert await harness.sql("SELECT reported_status FROM vouchers.dispute") == [(None,)]
    del harness.server.faults[path]
    await harness.parts.payment_reporter.report()
    assert "PaymentDisputed" in await harness.events("kestrel")
    await receive(harness, harness.stripe_fixture.stripe.dispute(session, "won", "closed"))


async def test_failed_refund_brings_the_completed_status_back(
    harness: ControllerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    session = await paid(harness)
    stripe = harness.stripe_fixture.stripe
    await settle(harness, stripe.refund(session))
    assert reason(await delivered(harness)) == ("False", "Refunded")
    amount = stripe.payment_of(session)["amount"]
    await settle(harness, stripe.refund_fails(session, amount))
    status = await delivered(harness)
    assert (status["state"], reason(status)) == ("Completed", ("True", "Reinstated"))
    assert reason(status, "PaymentSettled") == ("True", "Reinstated")
    assert (await harness.events("kestrel")).count("Reinstated") == 1
    assert "a refund failed: refund the money in another way" in caplog.messages
    await harness.sql("UPDATE vouchers.payment SET refund_settled_minor = refunded_minor")

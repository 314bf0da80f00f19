"""A payment processor that does not answer: only orders that need it wait."""

import asyncio

import pytest

from testbed.scripted_stripe import Fault
from tests.cluster.controller_harness import ControllerHarness, reason, spec
from tests.cluster.stripe_fixture import order
from voucher_operator.controllers.purchase import periodic as purchases

CUSTOMERS, SESSIONS = "/v1/customers", "/v1/checkout/sessions"


@pytest.mark.parametrize("harness", [{"workers": 2, "stripe_timeout": 60.0}], indirect=True)
async def test_order_covered_by_credit_completes_while_stripe_hangs(harness: ControllerHarness) -> None:
    """One checkout hangs, and there are two workers: the next that needs one waits, and credit still pays."""
    harness.apply("hangs", spec(await harness.issue(), order=order("xl")))
    harness.apply("waits", spec(await harness.issue(), order=order("xl")))
    harness.apply("covered", spec(await harness.issue()))
    pause = harness.stripe_fixture.stripe.pause(CUSTOMERS)
    hanging = asyncio.create_task(harness.reconcile("hangs"))
    assert await asyncio.to_thread(pause.reached.wait, 20)
    assert reason(await harness.reconcile("waits")) == ("False", "Placed")
    assert (await harness.reconcile("covered"))["state"] == "Completed"
    pause.released.set()
    assert (await hanging)["state"] == "AwaitingPayment"
    assert (await harness.reconcile("waits"))["state"] == "AwaitingPayment"


@pytest.mark.parametrize("harness", [{"stripe_timeout": 60.0}], indirect=True)
async def test_holds_are_released_while_stripe_hangs(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted before their customers could pay; the first one's open checkouts are asked for, and no answer comes."""
    monkeypatch.setattr(purchases, "_STEP_TIMEOUT", 60.0)
    names = ["first", "second", "third"]
    harness.stripe_fixture.stripe.fail(SESSIONS, *[Fault.UNAVAILABLE] * 9)
    for name in names:
        harness.apply(name, spec(await harness.issue(), tenant=name, order=order("xl")))
        await harness.reconcile(name)
    harness.stripe_fixture.stripe.clear_faults()
    pause = harness.stripe_fixture.stripe.pause(SESSIONS)
    for name in names:
        harness.remove(name)
    sweep = asyncio.create_task(harness.parts.purchase_tasks.sweep())
    assert await asyncio.to_thread(pause.reached.wait, 20)
    async with asyncio.timeout(20):
        while any([(await harness.purchase(name)).state != "rolled_back" for name in names]):
            assert not sweep.done()
    pause.released.set()
    await sweep


@pytest.mark.parametrize("harness", [{"stripe_timeout": 60.0}], indirect=True)
async def test_hanging_stripe_call_does_not_block_the_sweep(
    harness: ControllerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hold is released by then; what would be asked of the payment processor is left."""
    monkeypatch.setattr(purchases, "_STEP_TIMEOUT", 2.0)
    harness.stripe_fixture.stripe.fail(SESSIONS, Fault.UNAVAILABLE)
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    harness.stripe_fixture.stripe.clear_faults()
    harness.remove("kestrel")
    pause = harness.stripe_fixture.stripe.pause(SESSIONS)
    async with asyncio.timeout(20):
        await harness.parts.purchase_tasks.sweep()
    assert (await harness.purchase("kestrel")).state == "rolled_back"
    pause.released.set()

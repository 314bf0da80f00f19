"""A payment processor that does not answer: who needs it waits, and nobody else."""

import asyncio

import pytest

from testbed.scripted_stripe import Fault
from tests.cluster.desk import Desk, reason, spec
from tests.cluster.market import order
from voucher_operator.controllers.purchase import periodic as purchases

CUSTOMERS, SESSIONS = "/v1/customers", "/v1/checkout/sessions"


@pytest.mark.parametrize("desk", [{"workers": 2, "stripe_timeout": 60.0}], indirect=True)
async def test_what_needs_no_card_goes_on(desk: Desk) -> None:
    """One checkout hangs, and there are two workers: the next that needs one is put off, and credit pays as ever."""
    desk.apply("hangs", spec(await desk.issue(), order=order("xl")))
    desk.apply("waits", spec(await desk.issue(), order=order("xl")))
    desk.apply("covered", spec(await desk.issue()))
    pause = desk.market.stripe.pause(CUSTOMERS)
    hanging = asyncio.create_task(desk.reconcile("hangs"))
    assert await asyncio.to_thread(pause.reached.wait, 20)
    assert reason(await desk.reconcile("waits")) == ("False", "Placed")
    assert (await desk.reconcile("covered"))["state"] == "Completed"
    pause.released.set()
    assert (await hanging)["state"] == "AwaitingPayment"
    assert (await desk.reconcile("waits"))["state"] == "AwaitingPayment"


@pytest.mark.parametrize("desk", [{"stripe_timeout": 60.0}], indirect=True)
async def test_each_hold_is_released_while_one_hangs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted before their customers could pay; the first one's open checkouts are asked for, and no answer comes."""
    monkeypatch.setattr(purchases, "_TIME", 60.0)
    names = ["first", "second", "third"]
    desk.market.stripe.fail(SESSIONS, *[Fault.UNAVAILABLE] * 9)
    for name in names:
        desk.apply(name, spec(await desk.issue(), tenant=name, order=order("xl")))
        await desk.reconcile(name)
    desk.market.stripe.heal()
    pause = desk.market.stripe.pause(SESSIONS)
    for name in names:
        desk.remove(name)
    sweep = asyncio.create_task(desk.parts.purchases.sweep())
    assert await asyncio.to_thread(pause.reached.wait, 20)
    async with asyncio.timeout(20):
        while any([(await desk.purchase(name)).state != "rolled_back" for name in names]):
            assert not sweep.done()
    pause.released.set()
    await sweep


@pytest.mark.parametrize("desk", [{"stripe_timeout": 60.0}], indirect=True)
async def test_one_that_hangs_keeps_no_pass(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hold is released by then; what would be asked of the payment processor is left."""
    monkeypatch.setattr(purchases, "_TIME", 2.0)
    desk.market.stripe.fail(SESSIONS, Fault.UNAVAILABLE)
    desk.apply("kestrel", spec(await desk.issue(), order=order("xl")))
    await desk.reconcile("kestrel")
    desk.market.stripe.heal()
    desk.remove("kestrel")
    pause = desk.market.stripe.pause(SESSIONS)
    async with asyncio.timeout(20):
        await desk.parts.purchases.sweep()
    assert (await desk.purchase("kestrel")).state == "rolled_back"
    pause.released.set()

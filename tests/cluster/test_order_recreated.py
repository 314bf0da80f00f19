"""A Redemption that is created again, from Git or a backup: the same request has the same order, with any uid."""

import json
from pathlib import Path

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.stripe_fixture import ADDONS, PLANS, order
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.kube.status_writer import StatusWriter

SAID = ("state", "orderID", "checkoutURL", "credit", "finished")


def change_catalog(harness: ControllerHarness, text: str | None) -> None:
    """Take the plans away, or with None the catalog."""
    catalog = Path(str(harness.process.settings.catalog_file))
    catalog.unlink() if text is None else catalog.write_text(text)


@pytest.mark.parametrize("text", [json.dumps({"plans": PLANS[:1], "addons": ADDONS}), None])
async def test_recreated_order_needs_no_catalog(harness: ControllerHarness, text: str | None) -> None:
    """Its plan is no longer sold, or the catalog is unavailable: the status shows the placed order and its URL."""
    asked = {
        name: spec(await harness.issue(), tenant=name, order=order(plan))
        for name, plan in (("all", "m"), ("part", "xl"))
    }
    before = {}
    for name, one in asked.items():
        harness.apply(name, one)
        before[name] = await harness.reconcile(name)
        harness.remove(name)
    change_catalog(harness, text)
    for name, one in asked.items():
        harness.apply(name, one)
        after = await harness.reconcile(name)
        assert {key: after.get(key) for key in SAID} == {key: before[name].get(key) for key in SAID}
    assert (before["all"]["state"], before["part"]["state"]) == ("Completed", "AwaitingPayment")
    harness.remove("all")
    harness.apply("all", asked["all"] | {"order": order("xl")})
    assert reason(await harness.reconcile("all")) in (("False", "InvalidOrder"), ("False", "CatalogUnavailable"))


async def test_refund_reaches_the_recreated_redemption(harness: ControllerHarness) -> None:
    """It had finished; and one by this name that asks for something else is left alone."""
    asked = spec(await harness.issue(), order=order("xl"))
    harness.apply("kestrel", asked)
    await harness.reconcile("kestrel")
    session = str((await harness.purchase("kestrel")).session_id)
    await settle(harness, harness.stripe_fixture.stripe.pay(session))
    harness.remove("kestrel")
    harness.apply("kestrel", asked)
    assert (await harness.reconcile("kestrel"))["finished"]
    await settle(harness, harness.stripe_fixture.stripe.refund(session))
    await harness.deliver()
    assert reason(await harness.reconcile("kestrel")) == ("False", "Refunded")
    harness.remove("kestrel")
    harness.apply("kestrel", asked | {"order": order("m")})
    refused = dict(await harness.reconcile("kestrel"))
    assert reason(refused) == ("False", "IdempotencyConflict")
    await harness.sql("UPDATE vouchers.purchase SET settled_at = clock_timestamp()")
    await harness.deliver()
    assert await harness.reconcile("kestrel") == refused


async def test_status_shows_the_last_reason(harness: ControllerHarness) -> None:
    """It expired, was paid after all when the credit was gone, and was refunded: state alike, another reason."""
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    session = str((await harness.purchase("kestrel")).session_id)
    await settle(harness, harness.stripe_fixture.stripe.expire(session))
    expired = dict(await harness.reconcile("kestrel"))
    assert (expired["state"], reason(expired)) == ("Redeemed", ("False", "CheckoutExpired"))
    await harness.deliver()
    change = "UPDATE vouchers.purchase SET state = 'refunded', reason = 'Refunded', settled_at = clock_timestamp()"
    await harness.sql(change)
    await harness.sql("UPDATE orders SET status = 'refunded'")
    await harness.deliver()
    refunded = await harness.reconcile("kestrel")
    assert (refunded["state"], reason(refunded)) == ("Redeemed", ("False", "Refunded"))


async def test_late_deletion_event_of_the_old_object_keeps_the_new_one(harness: ControllerHarness) -> None:
    """Watch events of two objects come in any order, and a write to the old one may fail after the new one has come."""
    asked = spec(await harness.issue())
    before = harness.apply("kestrel", asked)
    after = harness.apply("kestrel", asked)
    harness.parts.feed.redemption(before, gone=True)
    cache = harness.parts.feed.redemption_cache
    assert cache.by_uid(after["metadata"]["uid"]) is not None
    harness.server.objects.clear()
    writer = StatusWriter(harness.process.kube, REDEMPTION, cache)
    assert not await writer.write("billing/kestrel", before, {"observedGeneration": 1})
    assert cache.by_uid(after["metadata"]["uid"]) is not None

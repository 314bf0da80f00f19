"""A Redemption that is created anew, from Git or a backup: the same request has the same order, by whatever uid."""

import json
from pathlib import Path

import pytest

from tests.cluster.desk import Desk, reason, settle, spec
from tests.cluster.market import ADDONS, PLANS, order
from voucher_operator.kube.status_writer import StatusWriter

SAID = ("state", "orderID", "checkoutURL", "credit", "finished")


def change_catalog(desk: Desk, text: str | None) -> None:
    """Take the plans away, or with None the catalog."""
    catalog = Path(str(desk.process.settings.catalog_file))
    catalog.unlink() if text is None else catalog.write_text(text)


@pytest.mark.parametrize("text", [json.dumps({"plans": PLANS[:1], "addons": ADDONS}), None])
async def test_what_was_placed_stands_without_the_catalog(desk: Desk, text: str | None) -> None:
    """Its plan is sold no more, or nobody can say: it has been bought, and is told so, or where it can be paid."""
    asked = {
        name: spec(await desk.issue(), tenant=name, order=order(plan)) for name, plan in (("all", "m"), ("part", "xl"))
    }
    before = {}
    for name, one in asked.items():
        desk.apply(name, one)
        before[name] = await desk.reconcile(name)
        desk.remove(name)
    change_catalog(desk, text)
    for name, one in asked.items():
        desk.apply(name, one)
        after = await desk.reconcile(name)
        assert {key: after.get(key) for key in SAID} == {key: before[name].get(key) for key in SAID}
    assert (before["all"]["state"], before["part"]["state"]) == ("Completed", "AwaitingPayment")
    desk.remove("all")
    desk.apply("all", asked["all"] | {"order": order("xl")})
    assert reason(await desk.reconcile("all")) in (("False", "InvalidOrder"), ("False", "CatalogUnavailable"))


async def test_a_refund_reaches_the_one_that_was_created_anew(desk: Desk) -> None:
    """It had finished; and one by this name that asks for something else is left alone."""
    asked = spec(await desk.issue(), order=order("xl"))
    desk.apply("kestrel", asked)
    await desk.reconcile("kestrel")
    session = str((await desk.purchase("kestrel")).session_id)
    await settle(desk, desk.market.stripe.pay(session))
    desk.remove("kestrel")
    desk.apply("kestrel", asked)
    assert (await desk.reconcile("kestrel"))["finished"]
    await settle(desk, desk.market.stripe.refund(session))
    await desk.deliver()
    assert reason(await desk.reconcile("kestrel")) == ("False", "Refunded")
    desk.remove("kestrel")
    desk.apply("kestrel", asked | {"order": order("m")})
    refused = dict(await desk.reconcile("kestrel"))
    assert reason(refused) == ("False", "IdempotencyConflict")
    await desk.sql("UPDATE vouchers.purchase SET settled_at = clock_timestamp()")
    await desk.deliver()
    assert await desk.reconcile("kestrel") == refused


async def test_the_last_reason_is_told(desk: Desk) -> None:
    """It expired, was paid after all when the credit was gone, and was refunded: state alike, another reason."""
    desk.apply("kestrel", spec(await desk.issue(), order=order("xl")))
    await desk.reconcile("kestrel")
    session = str((await desk.purchase("kestrel")).session_id)
    await settle(desk, desk.market.stripe.expire(session))
    expired = dict(await desk.reconcile("kestrel"))
    assert (expired["state"], reason(expired)) == ("Redeemed", ("False", "CheckoutExpired"))
    await desk.deliver()
    change = "UPDATE vouchers.purchase SET state = 'refunded', reason = 'Refunded', settled_at = clock_timestamp()"
    await desk.sql(change)
    await desk.sql("UPDATE orders SET status = 'refunded'")
    await desk.deliver()
    refunded = await desk.reconcile("kestrel")
    assert (refunded["state"], reason(refunded)) == ("Redeemed", ("False", "Refunded"))


async def test_the_end_of_the_one_before_it_comes_late(desk: Desk) -> None:
    """The watch tells of two objects in any order, and a write to the old one may fail after the new one has come."""
    asked = spec(await desk.issue())
    before = desk.apply("kestrel", asked)
    after = desk.apply("kestrel", asked)
    desk.parts.feed.redemption(before, gone=True)
    cache = desk.parts.feed.redemption_cache
    assert cache.by_uid(after["metadata"]["uid"]) is not None
    desk.server.objects.clear()
    writer = StatusWriter(desk.process.kube, "redemptions", "Redemption", cache)
    assert not await writer.write("billing/kestrel", before, {"observedGeneration": 1})
    assert cache.by_uid(after["metadata"]["uid"]) is not None

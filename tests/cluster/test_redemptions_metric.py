"""`voucher_operator_redemptions_total` counts a Redemption once: when it becomes finished, as it stands then."""

import pytest

from tests.cluster.desk import Desk, reason, settle, spec
from tests.cluster.market import order
from voucher_operator import telemetry
from voucher_operator.resources.errors import ApiUnavailableError


def counted() -> dict[tuple[str, str], float]:
    """Return the samples of this process, by outcome and reason."""
    (metric,) = telemetry.REDEMPTIONS.collect()
    samples = [one for one in metric.samples if one.name.endswith("_total")]
    return {(one.labels["outcome"], one.labels["reason"]): one.value for one in samples}


def grown(before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Return what was counted since."""
    return {labels: value - before.get(labels, 0) for labels, value in counted().items() if value != before.get(labels)}


async def test_paid_order_that_is_refunded_later_is_counted_once(desk: Desk) -> None:
    before = counted()
    desk.apply("kestrel", spec(await desk.issue(), order=order("xl")))
    await desk.reconcile("kestrel")
    session = str((await desk.purchase("kestrel")).session_id)
    await settle(desk, desk.market.stripe.pay(session))
    assert (await desk.reconcile("kestrel"))["state"] == "Completed"
    await settle(desk, desk.market.stripe.refund(session))
    await desk.deliver()
    assert reason(await desk.reconcile("kestrel")) == ("False", "Refunded")
    assert grown(before) == {("completed", "Completed"): 1}


async def test_order_is_counted_once_when_its_last_patch_is_not_answered(desk: Desk) -> None:
    before = counted()
    desk.apply("kestrel", spec(await desk.issue()))
    desk.server.unanswered = "PATCH"
    with pytest.raises(ApiUnavailableError):
        await desk.reconcile("kestrel")
    desk.server.unanswered = ""
    await desk.reconcile("kestrel")
    await desk.reconcile("kestrel")
    assert grown(before) == {("completed", "Completed"): 1}

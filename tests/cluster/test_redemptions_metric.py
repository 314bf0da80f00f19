"""`voucher_operator_redemptions_total` counts a Redemption once: when it becomes finished, as it stands then."""

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.stripe_fixture import order
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


async def test_paid_order_that_is_refunded_later_is_counted_once(harness: ControllerHarness) -> None:
    before = counted()
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    session = str((await harness.purchase("kestrel")).session_id)
    await settle(harness, harness.stripe_fixture.stripe.pay(session))
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"
    await settle(harness, harness.stripe_fixture.stripe.refund(session))
    await harness.deliver()
    assert reason(await harness.reconcile("kestrel")) == ("False", "Refunded")
    assert grown(before) == {("completed", "Completed"): 1}


async def test_order_is_counted_once_when_its_last_patch_is_not_answered(harness: ControllerHarness) -> None:
    before = counted()
    harness.apply("kestrel", spec(await harness.issue()))
    harness.server.unanswered = "PATCH"
    with pytest.raises(ApiUnavailableError):
        await harness.reconcile("kestrel")
    harness.server.unanswered = ""
    await harness.reconcile("kestrel")
    await harness.reconcile("kestrel")
    assert grown(before) == {("completed", "Completed"): 1}

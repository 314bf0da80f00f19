"""A Redemption that is deleted and kept by another finalizer: not redeemed, not bought; what was done is reported."""

import pytest

from testbed.scripted_stripe import Fault
from tests.cluster.conftest import Sovereign
from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.ledger_reader import wait_for_full_passes
from tests.cluster.resources import unique, waiting
from tests.cluster.stripe_fixture import order
from tests.cluster.test_redemption_results import issued
from tests.cluster.test_status_events import customer, fail_once, redeem, voucher
from tests.ledger.helpers import terms
from voucher_operator.kube.fairness import Flow
from voucher_operator.kube.work_queue import Result
from voucher_operator.resources.keys import Key


def deleted(harness: ControllerHarness, name: str = "kestrel") -> None:
    """Begin the deletion, and have the watch report it."""
    path = f"/apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions/{name}"
    body = harness.server.objects[path]
    body["metadata"] |= {"deletionTimestamp": "2026-12-01T00:00:00Z", "finalizers": ["another/owner"]}
    harness.parts.feed.redemption(body, gone=False)


async def nothing_happened(harness: ControllerHarness) -> bool:
    """Whether nothing was redeemed and nothing bought, or all of it was taken back."""
    counted = (
        "SELECT (SELECT count(*) FROM promo_redemptions), (SELECT coalesce(sum(amount_minor), 0) FROM credit_ledger)"
    )
    return await harness.sql(counted) == [(0, 0)]


async def test_it_is_not_redeemed(harness: ControllerHarness) -> None:
    harness.apply("kestrel", {"code": await harness.issue(), **customer()})
    deleted(harness)
    assert await redeem(harness) == {}
    assert await harness.ledger.redemption_of(Key("billing/kestrel"), "", "") is None
    assert await nothing_happened(harness)


async def test_deletion_that_begins_while_it_waits_for_its_turn(harness: ControllerHarness) -> None:
    """The worker has read the body, and asks for the code's Secret, when the watch reports the deletion."""
    harness.apply("kestrel", {**harness.secret("code", await harness.issue()), **customer()})
    redemptions = harness.parts.redemptions
    ask = redemptions.requests.backpressure.wait

    async def overtaken(flow: Flow) -> None:
        deleted(harness)
        await ask(flow)

    redemptions.requests.backpressure.wait = overtaken  # type: ignore[method-assign]
    assert await redemptions.reconcile("billing/kestrel") is Result.DONE
    assert await nothing_happened(harness)


async def test_grant_that_was_committed_before_is_told(harness: ControllerHarness) -> None:
    harness.apply("kestrel", {"code": await harness.issue(), **customer()})
    await fail_once(harness, lambda: redeem(harness), written=False)
    deleted(harness)
    status = await redeem(harness)
    assert (status["state"], status["credit"], reason(status)) == ("Redeemed", "10.000 OMR", ("True", "Redeemed"))


async def test_refusal_that_was_recorded_before_is_told(harness: ControllerHarness) -> None:
    harness.apply("kestrel", {"code": "NOBODYS", **customer()})
    await fail_once(harness, lambda: redeem(harness), written=False)
    deleted(harness)
    assert reason(await redeem(harness)) == ("False", "VoucherNotFound")
    assert await harness.events("kestrel") == ["VoucherNotFound"]


async def test_answer_to_another_of_its_name_is_not_told(harness: ControllerHarness) -> None:
    for code in ("NOBODYS", await harness.issue()):
        harness.apply("kestrel", {"code": code, **customer()})
        await redeem(harness)
        harness.remove("kestrel")
        harness.apply("kestrel", {"code": code, **customer()})
        deleted(harness)
        assert await redeem(harness) == {}


@pytest.mark.parametrize("plan", ["m", "xl"])
async def test_it_is_not_bought(harness: ControllerHarness, plan: str) -> None:
    harness.apply("kestrel", spec(await harness.issue(), order=order(plan)))
    deleted(harness)
    assert await harness.reconcile("kestrel") == {}
    assert await harness.ledger.purchase_of(Key("billing/kestrel")) is None
    assert await nothing_happened(harness)


@pytest.mark.parametrize("is_watched", [True, False])
async def test_order_whose_customer_has_no_checkout_yet_is_rolled_back(
    harness: ControllerHarness, is_watched: bool
) -> None:
    harness.stripe_fixture.stripe.fail("/v1/customers", Fault.UNAVAILABLE)
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    if not is_watched:
        harness.watch("kestrel").clear()
    deleted(harness)
    status = await harness.reconcile("kestrel")
    assert (status["state"], reason(status)) == ("RolledBack", ("False", "Abandoned"))
    assert status["finished"]
    assert await nothing_happened(harness)
    assert not harness.stripe_fixture.stripe.sessions


async def test_pass_over_placed_orders_makes_no_checkout_for_it(harness: ControllerHarness) -> None:
    harness.stripe_fixture.stripe.fail("/v1/customers", Fault.UNAVAILABLE)
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    deleted(harness)
    harness.elect_new_leader()
    await harness.parts.purchase_tasks.sweep()
    assert harness.parts.feed.order_queue.knows("billing/kestrel")
    assert (await harness.reconcile("kestrel"))["state"] == "RolledBack"
    assert not harness.stripe_fixture.stripe.sessions


async def test_order_that_the_customer_can_pay_goes_on(harness: ControllerHarness) -> None:
    harness.server.organizations = True
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    harness.watch("kestrel").clear()
    deleted(harness)
    assert "checkoutURL" in await harness.reconcile("kestrel")
    await settle(harness, harness.stripe_fixture.stripe.pay(str((await harness.purchase("kestrel")).session_id)))
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"
    assert harness.organization("kestrel") is not None


async def test_code_of_a_released_voucher_is_revoked_although_another_finalizer_keeps_the_object(
    harness: ControllerHarness,
) -> None:
    """It was released without a ledger; one that still has our finalizer is revoked by its deletion."""
    for name, finalizers in (("released", ["another/owner"]), ("held", ["billing.openova.io/revoke"])):
        body = voucher(harness, name, f"CODE-{name}".upper())
        body["metadata"] |= {"deletionTimestamp": "2026-12-01T00:00:00Z", "finalizers": finalizers}
        await harness.ledger.put(terms(f"CODE-{name}".upper(), uid=body["metadata"]["uid"], name=name))
    await harness.parts.resync.resync()
    assert await harness.sql("SELECT owner_name FROM vouchers.terms WHERE revoked_at IS NULL") == [("held",)]


def test_on_a_cluster(sovereign: Sovereign) -> None:
    """The Secret that it waited for comes after the deletion began."""
    voucher, user, name = issued(sovereign), unique("deleted"), unique("late")
    made = sovereign.api.redeem(user=user, codeFrom={"secretKeyRef": {"name": name, "key": "code"}})
    made.wait(waiting("SecretNotFound"))
    made.patch({"metadata": {"finalizers": ["example.com/another-owner"]}})
    made.delete()
    made.wait(lambda body: "deletionTimestamp" in body["metadata"])
    try:
        sovereign.api.secret(name, code=voucher.code)
        wait_for_full_passes(sovereign.api, sovereign.ledger)
        assert "finished" not in made.body()["status"]
        assert (sovereign.ledger.entries(user), sovereign.ledger.promo(voucher.code)[3]) == (0, 0)
    finally:
        made.patch({"metadata": {"finalizers": []}})
    made.wait_gone()

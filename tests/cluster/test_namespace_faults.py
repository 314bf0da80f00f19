"""A namespace whose calls fail keeps no other one: each error is taken as what it is."""

from typing import Final

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.resources import Object, unique
from tests.cluster.stripe_fixture import order
from tests.ledger.helpers import terms
from voucher_operator.controllers.kinds import REDEMPTION
from voucher_operator.resources.reasons import Reason

NAMESPACES: Final = ("first", "billing", "last")
PATH: Final = "/apis/billing.openova.io/v1alpha1/namespaces"
TERMINATING: Final = {"message": "no", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
NO_RIGHT: Final = 'User "operator" cannot delete resource "redemptions"'
three = pytest.mark.parametrize("harness", [{"namespaces": NAMESPACES}], indirect=True)


async def live_codes(harness: ControllerHarness) -> set[str]:
    """Return the namespaces whose code can be redeemed."""
    query = "SELECT owner_namespace FROM vouchers.terms WHERE revoked_at IS NULL"
    return {namespace for (namespace,) in await harness.sql(query)}


@three
@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 500])
@pytest.mark.parametrize("which", NAMESPACES)
async def test_orphans_are_revoked_in_the_namespaces_that_are_listed(
    harness: ControllerHarness, status: int, which: str
) -> None:
    for namespace in NAMESPACES:
        await harness.ledger.put(terms(unique("CODE").upper(), uid=namespace, namespace=namespace, name="gone"))
    harness.server.faults[f"GET {PATH}/{which}/"] = (status, "no")
    await harness.parts.resync.resync()
    assert await live_codes(harness) == {which}
    harness.server.faults.clear()
    await harness.parts.resync.resync()
    assert await live_codes(harness) == set()


@three
async def test_missed_redemption_is_found_although_another_namespace_cannot_be_listed(
    harness: ControllerHarness,
) -> None:
    harness.server.faults[f"GET {PATH}/first/"] = (410, "expired")
    harness.apply("kestrel", spec(await harness.issue()))
    harness.parts.feed.redemption_cache.drop("billing/kestrel")
    await harness.parts.resync.resync()
    assert harness.parts.feed.order_queue.knows("billing/kestrel")


def finished(harness: ControllerHarness, namespace: str, name: str) -> str:
    """Keep a finished Redemption whose time is up; return its path."""
    path = f"{PATH}/{namespace}/redemptions/{name}"
    metadata = {"name": name, "namespace": namespace, "uid": unique("uid")}
    status = {"finished": True, "finishedAt": "2026-01-01T00:00:00Z"}
    harness.server.objects[path] = {"metadata": metadata, "spec": {"ttlSecondsAfterFinished": 0}, "status": status}
    return path


@three
@pytest.mark.parametrize("status", [403, 404, 410, 500])
async def test_finished_redemptions_are_deleted_in_the_namespaces_that_are_listed(
    harness: ControllerHarness, status: int
) -> None:
    paths = {namespace: finished(harness, namespace, "old") for namespace in NAMESPACES}
    harness.server.faults[f"GET {PATH}/first/"] = (status, "no")
    await harness.parts.resync.expire_finished()
    assert set(harness.server.objects) == {paths["first"]}


@pytest.mark.parametrize("time", ["2026-12-01T23:59:60Z", "2026-12-01T00:00:00", "9999-12-31T23:59:59Z"])
async def test_one_that_has_finished_at_no_past_time_keeps_no_other(harness: ControllerHarness, time: str) -> None:
    """Somebody else has written its status."""
    odd = finished(harness, "billing", "first")
    harness.server.objects[odd]["status"]["finishedAt"] = time
    finished(harness, "billing", "old")
    await harness.parts.resync.expire_finished()
    assert set(harness.server.objects) == {odd}


@pytest.mark.parametrize(
    ("status", "said", "left"),
    [
        (404, "gone", {"kept"}),
        (409, "another", {"kept"}),
        (403, "denied", {"kept"}),
        (422, "denied", {"kept"}),
        (403, NO_RIGHT, {"kept", "old"}),
    ],
)
async def test_one_that_cannot_be_deleted_keeps_no_other(
    harness: ControllerHarness, status: int, said: str, left: set[str]
) -> None:
    """But a right that is missing is missing for all."""
    kept = finished(harness, "billing", "kept")
    finished(harness, "billing", "old")
    harness.server.faults[f"DELETE {kept}"] = (status, said)
    await harness.parts.resync.expire_finished()
    assert {path.rpartition("/")[2] for path in harness.server.objects} == left


async def paid(harness: ControllerHarness, fault: tuple[int, str | Object]) -> tuple[tuple[str, str] | None, str]:
    """Pay an order whose Organization cannot be created; return OrganizationReady, and what Ready says."""
    harness.server.organizations = True
    harness.server.faults["POST /apis/catalyst.openova.io"] = fault
    harness.apply("kestrel", spec(await harness.issue()))
    status = await harness.reconcile("kestrel")
    assert (status["state"], "finished" in status) == ("Completed", False)
    return reason(status, "OrganizationReady"), status["conditions"][0]["message"]


@pytest.mark.parametrize(
    ("fault", "condition", "said"),
    [
        ((404, "no"), ("Unknown", "OrganizationNotReady"), "namespace billing does not exist"),
        ((403, TERMINATING), ("Unknown", "OrganizationNotReady"), "namespace billing is being deleted"),
        ((409, "no"), ("Unknown", "OrganizationNotReady"), "created and deleted at the same time"),
        ((503, "no"), ("Unknown", "OrganizationNotReady"), "the API server answered 503"),
        ((403, "denied by policy"), ("False", "OrganizationRefused"), "denied by policy"),
        ((422, "spec.tier: Required value"), ("False", "OrganizationRefused"), "spec.tier: Required value"),
    ],
)
async def test_paid_order_says_why_its_organization_cannot_be_made(
    harness: ControllerHarness, fault: tuple[int, str | Object], condition: tuple[str, str], said: str
) -> None:
    reported, message = await paid(harness, fault)
    assert reported == condition
    assert said in message
    harness.server.faults.clear()
    harness.server.organizations = True
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"
    assert harness.organization("kestrel") is not None


@pytest.mark.parametrize("status", [403, 410, 500])
async def test_paid_order_is_brought_to_its_organization_although_its_redemption_cannot_be_read(
    harness: ControllerHarness, status: int
) -> None:
    """403 is for long, and what was paid for is made; anything else may pass, and is tried again."""
    harness.server.organizations = True
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    await settle(harness, harness.stripe_fixture.stripe.pay(str((await harness.purchase("kestrel")).session_id)))
    harness.parts.feed.redemption_cache.drop("billing/kestrel")
    harness.server.faults[f"GET {PATH}/billing/redemptions"] = (status, "no")
    await harness.deliver()
    assert (harness.organization("kestrel") is not None) is (status == 403)
    harness.server.faults.clear()
    await harness.deliver()
    assert harness.parts.feed.order_queue.knows("billing/kestrel")


async def test_event_of_a_namespace_that_is_deleted_keeps_no_other(harness: ControllerHarness) -> None:
    harness.server.faults["POST /apis/events.k8s.io/v1/namespaces/last"] = (403, TERMINATING)
    customer = {"userID": unique("user"), "tenantID": "kestrel", "email": "ahmed@example.com"}
    body = harness.apply("kestrel", {"code": "NOBODYS", "customer": customer})
    elsewhere = {"metadata": {"name": "kestrel", "namespace": "last", "uid": unique("uid")}}
    recorder = harness.process.recorder
    for one in (elsewhere, body):
        recorder.record(REDEMPTION, one, Reason.VOUCHER_NOT_FOUND, "Redeem", "No such code.", warning=True)
    assert await harness.events("kestrel") == ["VoucherNotFound"]


async def test_event_that_somebody_deleted_is_posted_anew(harness: ControllerHarness) -> None:
    body = harness.apply("kestrel", {"code": "NOBODYS", "customer": {}})
    for _ in range(2):
        harness.process.recorder.record(REDEMPTION, body, Reason.VOUCHER_NOT_FOUND, "Redeem", "No such code.")
        assert await harness.events("kestrel") == ["VoucherNotFound"]
        harness.server.objects = {
            path: one for path, one in harness.server.objects.items() if "events.k8s.io" not in path
        }

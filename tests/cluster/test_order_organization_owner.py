"""Owner of an Organization: an order adopts its own tenant's or creates a new one, and never takes another's."""

import pytest

from testbed.kstatus import kstatus
from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.stripe_fixture import order
from voucher_operator.resources.keys import Key

NOTED = "billing.openova.io/tenant-id"


@pytest.mark.parametrize(
    ("tenant", "annotations", "adopted"),
    [
        ("kestrel", {}, True),
        (None, {NOTED: "kestrel"}, True),
        ("falcon", {NOTED: "kestrel"}, True),
        (None, {}, False),
        ("falcon", {}, False),
        ("kestrel", {NOTED: "falcon"}, False),
    ],
)
async def test_organization_is_adopted_only_for_its_tenant(
    harness: ControllerHarness, tenant: str | None, annotations: dict[str, str], adopted: bool
) -> None:
    """By annotation, spec or name; one without any of these is not adopted."""
    harness.server.organizations = True
    harness.found("books", tenant=tenant, annotations=annotations)
    code = await harness.issue()
    harness.apply("kestrel", spec(code, "ahmed", order=order("m", subdomain="books")))
    status = await harness.reconcile("kestrel")
    if adopted:
        assert (status["state"], reason(status, "OrganizationReady")) == ("Completed", ("True", "OrganizationCreated"))
    else:
        assert (status["state"], reason(status)) == ("Rejected", ("False", "InvalidOrder"))
        assert await harness.ledger.purchase_of(Key("billing/kestrel")) is None
        assert await harness.ledger.balance("ahmed") == 0


async def test_organization_named_as_the_tenant_is_adopted(harness: ControllerHarness) -> None:
    harness.server.organizations = True
    harness.found("kestrel")
    harness.apply("kestrel", spec(await harness.issue()))
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"


async def test_organization_of_another_tenant_stalls_a_paid_order(harness: ControllerHarness) -> None:
    """The order stays paid; the message says who can resolve it, and then it is finished."""
    harness.server.organizations = True
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    await harness.reconcile("kestrel")
    harness.found("kestrel", tenant="falcon")
    await settle(harness, harness.stripe_fixture.stripe.pay(str((await harness.purchase("kestrel")).session_id)))
    status = await harness.reconcile("kestrel")
    assert (status["state"], "finished" in status, reason(status, "Reconciling")) == ("Completed", False, None)
    assert reason(status, "Stalled") == ("True", "OrganizationRefused")
    assert reason(status, "PaymentSettled") == ("True", "Completed")
    assert "sovereign-admin" in status["conditions"][0]["message"]
    assert kstatus({"metadata": {"generation": 1}, "status": status}) == "Failed"
    harness.found("kestrel", tenant="falcon", annotations={NOTED: "kestrel"})
    assert (await harness.reconcile("kestrel"))["finished"]


@pytest.mark.parametrize("status", [403, 500])
async def test_unreadable_organizations_do_not_stop_the_order(harness: ControllerHarness, status: int) -> None:
    """It is placed and paid; the error of the API server is shown afterwards."""
    harness.server.organizations = True
    harness.server.faults["GET /apis/catalyst.openova.io/v1alpha1/organizations"] = (status, "forbidden")
    harness.apply("kestrel", spec(await harness.issue()))
    status_read = await harness.reconcile("kestrel")
    assert (status_read["state"], reason(status_read, "PaymentSettled")) == ("Completed", ("True", "Completed"))
    refused = ("False", "OrganizationRefused") if status == 403 else ("Unknown", "OrganizationNotReady")
    assert reason(status_read, "OrganizationReady") == refused


@pytest.mark.parametrize("harness", [{"organizations": False}], indirect=True)
async def test_disabled_organizations_cause_no_api_calls(harness: ControllerHarness) -> None:
    """The operator has no right to them and creates none: every order ends as Delegated."""
    harness.server.organizations = True
    harness.found("kestrel", tenant="falcon")
    harness.apply("kestrel", spec(await harness.issue()))
    status = await harness.reconcile("kestrel")
    assert (status["finished"], reason(status, "OrganizationReady")) == (True, ("Unknown", "Delegated"))
    assert not [call for call in harness.server.calls if "catalyst" in call]


async def test_credit_of_another_tenants_customer_is_not_spent(harness: ControllerHarness) -> None:
    """Somebody else's userID and one's own tenantID: refused for good, and nothing is used up."""
    harness.apply("own", spec(await harness.issue(), "ahmed"))
    assert (await harness.reconcile("own"))["state"] == "Completed"
    code = await harness.issue()
    harness.apply("stranger", spec(code, "ahmed", tenant="falcon"))
    status = await harness.reconcile("stranger")
    assert (status["state"], status["finished"]) == ("Rejected", True)
    for kind in ("Redeemed", "OrderPlaced", "Ready"):
        assert reason(status, kind) == ("False", "CustomerMismatch")
    assert reason(status, "Stalled") == ("True", "CustomerMismatch")
    assert "falcon" not in str(status["conditions"])
    assert "kestrel" not in str(status["conditions"])
    assert await harness.ledger.balance("ahmed") == 1_000
    assert await harness.sql("SELECT times_redeemed FROM promo_codes WHERE code = %s", code) == [(0,)]


@pytest.mark.parametrize("harness", [{"any_tenant": True}], indirect=True)
async def test_any_tenant_setting_allows_spending_for_another_tenant(harness: ControllerHarness) -> None:
    harness.apply("own", spec(await harness.issue(), "ahmed"))
    await harness.reconcile("own")
    harness.apply("other", spec(await harness.issue(), "ahmed", tenant="falcon"))
    assert (await harness.reconcile("other"))["state"] == "Completed"
    assert await harness.ledger.balance("ahmed") == 2_000

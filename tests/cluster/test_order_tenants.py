"""Whose Organization it is: an order takes its own tenant's and makes a new one, and never another's."""

import pytest

from tests.cluster.desk import Desk, reason, settle, spec
from tests.cluster.market import order
from voucher_operator.resources.conditions import kstatus
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
async def test_whose_it_is(desk: Desk, tenant: str | None, annotations: dict[str, str], adopted: bool) -> None:
    """As noted, as its spec says, or as it is called; one that says nothing is nobody's to take."""
    desk.server.organizations = True
    desk.found("books", tenant=tenant, annotations=annotations)
    code = await desk.issue()
    desk.apply("kestrel", spec(code, "ahmed", order=order("m", subdomain="books")))
    status = await desk.reconcile("kestrel")
    if adopted:
        assert (status["state"], reason(status, "OrganizationReady")) == ("Completed", ("True", "OrganizationCreated"))
    else:
        assert (status["state"], reason(status)) == ("Rejected", ("False", "InvalidOrder"))
        assert await desk.ledger.purchase_of(Key("billing/kestrel")) is None
        assert await desk.ledger.balance("ahmed") == 0


async def test_one_that_is_called_as_the_tenant_is(desk: Desk) -> None:
    desk.server.organizations = True
    desk.found("kestrel")
    desk.apply("kestrel", spec(await desk.issue()))
    assert (await desk.reconcile("kestrel"))["state"] == "Completed"


async def test_anothers_that_came_while_the_customer_paid(desk: Desk) -> None:
    """The order is paid and stands; only people can go on, it says who, and then it does."""
    desk.server.organizations = True
    desk.apply("kestrel", spec(await desk.issue(), order=order("xl")))
    await desk.reconcile("kestrel")
    desk.found("kestrel", tenant="falcon")
    await settle(desk, desk.market.stripe.pay(str((await desk.purchase("kestrel")).session_id)))
    status = await desk.reconcile("kestrel")
    assert (status["state"], "finished" in status, reason(status, "Reconciling")) == ("Completed", False, None)
    assert reason(status, "Stalled") == ("True", "OrganizationRefused")
    assert reason(status, "PaymentSettled") == ("True", "Completed")
    assert "sovereign-admin" in status["conditions"][0]["message"]
    assert kstatus({"metadata": {"generation": 1}, "status": status}) == "Failed"
    desk.found("kestrel", tenant="falcon", annotations={NOTED: "kestrel"})
    assert (await desk.reconcile("kestrel"))["finished"]


@pytest.mark.parametrize("status", [403, 500])
async def test_what_cannot_be_seen_stops_no_order(desk: Desk, status: int) -> None:
    """It is placed and paid; what the API server says is told afterwards."""
    desk.server.organizations = True
    desk.server.faults["GET /apis/catalyst.openova.io/v1alpha1/organizations"] = (status, "forbidden")
    desk.apply("kestrel", spec(await desk.issue()))
    told = await desk.reconcile("kestrel")
    assert (told["state"], reason(told, "PaymentSettled")) == ("Completed", ("True", "Completed"))
    refused = ("False", "OrganizationRefused") if status == 403 else ("Unknown", "OrganizationNotReady")
    assert reason(told, "OrganizationReady") == refused


@pytest.mark.parametrize("desk", [{"organizations": False}], indirect=True)
async def test_none_are_wanted(desk: Desk) -> None:
    """The operator has no right to them and shall make none: every order is handed over, whatever the cluster has."""
    desk.server.organizations = True
    desk.found("kestrel", tenant="falcon")
    desk.apply("kestrel", spec(await desk.issue()))
    status = await desk.reconcile("kestrel")
    assert (status["finished"], reason(status, "OrganizationReady")) == (True, ("Unknown", "HandedOver"))
    assert not [call for call in desk.server.calls if "catalyst" in call]


async def test_credit_of_another_tenants_customer_is_not_spent(desk: Desk) -> None:
    """Somebody else's userID and one's own tenantID: refused for good, and nothing is used up."""
    desk.apply("own", spec(await desk.issue(), "ahmed"))
    assert (await desk.reconcile("own"))["state"] == "Completed"
    code = await desk.issue()
    desk.apply("stranger", spec(code, "ahmed", tenant="falcon"))
    status = await desk.reconcile("stranger")
    assert (status["state"], status["finished"]) == ("Rejected", True)
    for kind in ("Redeemed", "OrderPlaced", "Ready"):
        assert reason(status, kind) == ("False", "CustomerMismatch")
    assert reason(status, "Stalled") == ("True", "CustomerMismatch")
    assert "falcon" not in str(status["conditions"])
    assert "kestrel" not in str(status["conditions"])
    assert await desk.ledger.balance("ahmed") == 1_000
    assert await desk.sql("SELECT times_redeemed FROM promo_codes WHERE code = %s", code) == [(0,)]


@pytest.mark.parametrize("desk", [{"any_tenant": True}], indirect=True)
async def test_sovereign_lets_credit_be_spent_for_any_tenant(desk: Desk) -> None:
    desk.apply("own", spec(await desk.issue(), "ahmed"))
    await desk.reconcile("own")
    desk.apply("other", spec(await desk.issue(), "ahmed", tenant="falcon"))
    assert (await desk.reconcile("other"))["state"] == "Completed"
    assert await desk.ledger.balance("ahmed") == 2_000

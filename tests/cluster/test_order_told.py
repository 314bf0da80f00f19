"""What the status of an order says when something else is amiss: it never says less than the ledger knows."""

from tests.cluster.desk import Desk, reason, spec
from tests.cluster.market import order
from voucher_operator.resources.errors import LedgerUnavailableError

SAID = ("state", "checkoutURL", "orderID", "credit", "redeemedAt")


async def awaiting(desk: Desk, name: str = "kestrel") -> None:
    """Order what a card has to pay the rest of."""
    desk.apply(name, spec(await desk.issue(), order=order("xl")))
    assert (await desk.reconcile(name))["state"] == "AwaitingPayment"


async def test_an_outage_takes_nothing_back(desk: Desk) -> None:
    """While the ledger is away, order, URL and credit stay told, and so does what is said of each."""
    await awaiting(desk)
    before = dict(desk.watch("kestrel"))
    desk.parts.purchases.outage.begin(LedgerUnavailableError("PostgreSQL is away."))
    during = await desk.reconcile("kestrel")
    assert reason(during) == ("False", "LedgerUnavailable")
    assert reason(during, "Reconciling") == ("True", "LedgerUnavailable")
    assert {name: during[name] for name in SAID} == {name: before[name] for name in SAID}
    for kind in ("Redeemed", "OrderPlaced", "PaymentSettled"):
        assert reason(during, kind) == reason(before, kind) is not None
    desk.parts.purchases.outage.end()
    assert await desk.reconcile("kestrel") == before


async def test_paid_whatever_becomes_of_the_organization(desk: Desk) -> None:
    """Who has paid reads so, also while the API server fails for Organizations alone, and why it is not finished."""
    desk.server.organizations = True
    desk.server.faults["POST /apis/catalyst.openova.io"] = (500, "failed calling webhook")
    desk.apply("kestrel", spec(await desk.issue()))
    status = await desk.reconcile("kestrel")
    assert (status["state"], "finished" in status) == ("Completed", False)
    assert reason(status, "PaymentSettled") == ("True", "Completed")
    assert reason(status, "OrganizationReady") == ("Unknown", "OrganizationNotReady")
    assert reason(status) == ("False", "OrganizationNotReady")

"""The conditions of an order while something else fails: they never lose what the ledger knows."""

import pytest

from testbed.scripted_stripe import Fault
from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.stripe_fixture import order
from voucher_operator.resources.errors import LedgerUnavailableError

SAID = ("state", "checkoutURL", "orderID", "credit", "redeemedAt")


async def awaiting(harness: ControllerHarness, name: str = "kestrel") -> None:
    """Order what a card has to pay the rest of."""
    harness.apply(name, spec(await harness.issue(), order=order("xl")))
    assert (await harness.reconcile(name))["state"] == "AwaitingPayment"


async def test_ledger_outage_keeps_the_known_conditions(harness: ControllerHarness) -> None:
    """While the ledger is unavailable, order, URL, credit and their conditions stay in the status."""
    await awaiting(harness)
    before = dict(harness.watch("kestrel"))
    harness.parts.purchases.health.set_unavailable(LedgerUnavailableError("PostgreSQL is away."))
    during = await harness.reconcile("kestrel")
    assert reason(during) == ("False", "LedgerUnavailable")
    assert reason(during, "Reconciling") == ("True", "LedgerUnavailable")
    assert {name: during[name] for name in SAID} == {name: before[name] for name in SAID}
    for kind in ("Redeemed", "OrderPlaced", "PaymentSettled"):
        assert reason(during, kind) == reason(before, kind) is not None
    harness.parts.purchases.health.set_available()
    assert await harness.reconcile("kestrel") == before


async def test_paid_order_shows_its_payment_while_the_organization_fails(harness: ControllerHarness) -> None:
    """The status shows the payment, and why it is not finished, while the API server fails for Organizations."""
    harness.server.organizations = True
    harness.server.faults["POST /apis/catalyst.openova.io"] = (500, "failed calling webhook")
    harness.apply("kestrel", spec(await harness.issue()))
    status = await harness.reconcile("kestrel")
    assert (status["state"], "finished" in status) == ("Completed", False)
    assert reason(status, "PaymentSettled") == ("True", "Completed")
    assert reason(status, "OrganizationReady") == ("Unknown", "OrganizationNotReady")
    assert reason(status) == ("False", "OrganizationNotReady")


def lose_status(harness: ControllerHarness) -> None:
    """Delete the status, and deliver the watch event."""
    harness.watch("kestrel").clear()
    harness.watch("kestrel")


@pytest.mark.parametrize("overdue", [True, False])
async def test_overdue_order_is_rolled_back_without_its_secret(harness: ControllerHarness, overdue: bool) -> None:
    """Placed, its status lost, its Secret deleted: it is rolled back at its deadline, and the status shows it."""
    harness.stripe_fixture.stripe.fail("/v1/customers", *[Fault.UNAVAILABLE] * 9)
    harness.apply("kestrel", spec(**harness.secret("code", await harness.issue()), order=order("xl")))
    assert reason(await harness.reconcile("kestrel")) == ("False", "PaymentProcessorUnavailable")
    harness.secret("code", None)
    lose_status(harness)
    assert (await harness.reconcile("kestrel"))["orderID"] == (await harness.purchase("kestrel")).order_id
    lose_status(harness)
    if overdue:
        await harness.sql("UPDATE vouchers.purchase SET deadline_at = placed_at")
    await harness.parts.purchase_tasks.sweep()
    assert ((await harness.purchase("kestrel")).state == "rolled_back") is overdue
    assert (await harness.reconcile("kestrel"))["state"] == ("RolledBack" if overdue else "Pending")


async def test_paid_order_completes_without_its_secret(harness: ControllerHarness) -> None:
    """The customer pays when status and Secret are gone: the order is completed."""
    harness.server.organizations = True
    harness.apply("kestrel", spec(**harness.secret("code", await harness.issue()), order=order("xl")))
    await harness.reconcile("kestrel")
    harness.secret("code", None)
    lose_status(harness)
    await settle(harness, harness.stripe_fixture.stripe.pay(str((await harness.purchase("kestrel")).session_id)))
    await harness.deliver()
    assert harness.parts.feed.order_queue.knows("billing/kestrel")
    assert (await harness.reconcile("kestrel"))["state"] == "Completed"
    assert harness.organization("kestrel") is not None


async def test_newer_spec_keeps_order_conditions_and_url(harness: ControllerHarness) -> None:
    """It was placed, and then an older operator runs: conditions and URL stay."""
    await awaiting(harness)
    before = dict(harness.watch("kestrel"))
    harness.watch("kestrel")
    body = harness.parts.feed.redemption_cache.get("billing/kestrel")
    assert body is not None
    body["spec"]["newField"] = True
    harness.parts.feed.redemption_cache.put(body)
    during = await harness.reconcile("kestrel")
    assert reason(during) == ("False", "InvalidSpec")
    assert reason(during, "OrderPlaced") == reason(before, "OrderPlaced") is not None
    assert during["checkoutURL"] == before["checkoutURL"]


async def test_rollback_after_spent_credit_stays_redeemed(harness: ControllerHarness) -> None:
    """The Go service spent the credit before the rollback: the status does not say that the code can be redeemed."""
    harness.stripe_fixture.stripe.fail("/v1/customers", *[Fault.UNAVAILABLE] * 9)
    harness.apply("kestrel", spec(await harness.issue(), order=order("xl")))
    status = await harness.reconcile("kestrel")
    assert reason(status, "Redeemed") == ("Unknown", "Placed")
    assert "credit" not in status
    (customer,) = (await harness.sql("SELECT customer_id FROM vouchers.purchase"))[0]
    spend = "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) VALUES (%s, %s, %s, 'go')"
    await harness.sql(spend, customer, -4, -4000)
    await harness.sql("UPDATE vouchers.purchase SET deadline_at = placed_at")
    status = await harness.reconcile("kestrel")
    assert (status["state"], status["credit"]) == ("Redeemed", "10.000 OMR")
    assert reason(status, "Redeemed") == ("True", "Redeemed")
    assert reason(status) == ("False", "PaymentProcessorUnavailable")
    assert "nothing was charged" not in str(status)
    assert "the code stays redeemed" in status["conditions"][0]["message"]


async def test_denial_that_differs_only_in_numbers_writes_no_status(harness: ControllerHarness) -> None:
    """The API server's message has another id at each try: the status is written once, until the message changes."""
    harness.server.organizations = True
    refuse = "POST /apis/catalyst.openova.io"
    harness.server.faults[refuse] = (403, "denied, request 5f1c-01 at 12:00:01")
    harness.apply("kestrel", spec(await harness.issue()))
    first = dict(await harness.reconcile("kestrel"))
    harness.server.faults[refuse] = (403, "denied, request 77ab-93 at 12:00:31")
    harness.server.calls.clear()
    assert await harness.reconcile("kestrel") == first
    assert not [call for call in harness.server.calls if call.startswith("PATCH")]
    harness.server.faults[refuse] = (422, "spec.tier: Required value")
    assert "Required value" in (await harness.reconcile("kestrel"))["conditions"][0]["message"]


@pytest.mark.parametrize("harness", [{"not_found_grace": 60}], indirect=True)
@pytest.mark.parametrize("secret", ["redemption", "voucher", "both"])
async def test_secret_code_of_another_currency_is_rejected(harness: ControllerHarness, secret: str) -> None:
    """The Redemption's, the Voucher's, or both: it is never in the ledger, and the Redemption does not wait."""
    reference, plain = harness.secret("dollars", "DOLLARS-1"), {"code": "DOLLARS-1"}
    metadata = {"name": "dollars", "namespace": "billing", "uid": "voucher-1", "generation": 1, "resourceVersion": "1"}
    ready = {"type": "Ready", "status": "False", "reason": "CurrencyMismatch"}
    voucher = {"metadata": metadata, "spec": plain if secret == "redemption" else reference}
    harness.parts.feed.voucher_cache.put(voucher | {"status": {"conditions": [ready]}})
    harness.apply("other", spec("OTHER-1"))
    assert reason(await harness.reconcile("other")) == ("False", "VoucherNotReady")
    harness.apply("kestrel", spec(**plain if secret == "voucher" else reference))
    status = await harness.reconcile("kestrel")
    assert (status["state"], reason(status)) == ("Rejected", ("False", "CurrencyMismatch"))

"""Delivery after a payment: the Organization and the status, also after failures and deletions meanwhile.

Only the ledger has it: the Redemption may be deleted, the leader replaced, and the API server may have failed.
"""

from typing import Any

import pytest

from tests.cluster.controller_harness import ControllerHarness, reason, settle, spec
from tests.cluster.stripe_fixture import order

CREATE = "POST /apis/catalyst.openova.io"
BROKEN = (500, 'failed calling webhook "organizations.platform": no endpoints available')
REFUSED = (422, "spec.tier: Required value")


async def paid_by_card(harness: ControllerHarness, name: str, **changes: Any) -> None:
    """Order, pay, and have the webhook arrive."""
    harness.apply(name, spec(await harness.issue(), **{"tenant": name, "order": order("xl"), **changes}))
    assert (await harness.reconcile(name))["state"] == "AwaitingPayment"
    await settle(harness, harness.stripe_fixture.stripe.pay(str((await harness.purchase(name)).session_id)))


@pytest.mark.parametrize("fault", [BROKEN, REFUSED])
async def test_organization_is_created_after_the_redemption_is_deleted(
    harness: ControllerHarness, fault: tuple[int, str]
) -> None:
    """It fails, with the Redemption and without it, and then another replica leads."""
    harness.server.organizations = True
    harness.server.faults[CREATE] = fault
    await paid_by_card(harness, "kestrel")
    assert reason(await harness.reconcile("kestrel"), "OrganizationReady") is not None
    harness.remove("kestrel")
    await harness.deliver()
    await harness.deliver()
    await harness.sql("UPDATE vouchers.purchase SET settled_at = settled_at - interval '1 hour'")
    harness.elect_new_leader()
    await harness.deliver()
    assert harness.organization("kestrel") is None
    harness.server.faults.clear()
    await harness.deliver()
    assert harness.organization("kestrel") is not None


async def test_delivered_orders_cause_no_api_calls(harness: ControllerHarness) -> None:
    await paid_by_card(harness, "kestrel")
    assert (await harness.reconcile("kestrel"))["finished"]
    harness.apply("falcon", spec(await harness.issue(), tenant="falcon"))
    assert (await harness.reconcile("falcon"))["finished"]
    await harness.deliver()
    harness.server.calls.clear()
    harness.elect_new_leader()
    await harness.deliver()
    assert harness.server.calls == []


@pytest.mark.parametrize(
    "path", ["/apis/catalyst.openova.io", "/apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions/kestrel"]
)
async def test_failed_delivery_does_not_block_other_orders(harness: ControllerHarness, path: str) -> None:
    """Organization or Redemption of one cannot be read; the payment of the other customer is delivered."""
    harness.server.organizations = True
    await paid_by_card(harness, "kestrel")
    harness.remove("kestrel")
    await paid_by_card(harness, "falcon")
    harness.server.faults[f"GET {path}"] = BROKEN
    await harness.deliver()
    assert harness.parts.feed.order_queue.knows("billing/falcon")


async def test_refund_without_leader_is_delivered_later(harness: ControllerHarness) -> None:
    """An hour ago; the Redemption had finished."""
    await paid_by_card(harness, "kestrel")
    await harness.reconcile("kestrel")
    await harness.deliver()
    await settle(harness, harness.stripe_fixture.stripe.refund(str((await harness.purchase("kestrel")).session_id)))
    await harness.sql("UPDATE vouchers.purchase SET settled_at = settled_at - interval '1 hour'")
    harness.elect_new_leader()
    await harness.deliver()
    assert harness.parts.feed.order_queue.knows("billing/kestrel")
    assert reason(await harness.reconcile("kestrel")) == ("False", "Refunded")


async def test_organization_is_created_without_rights_in_the_namespace(harness: ControllerHarness) -> None:
    """The Redemption cannot be read; the Organization, which is in no namespace, is still created."""
    harness.server.organizations = True
    await paid_by_card(harness, "kestrel")
    harness.remove("kestrel")
    harness.server.faults["GET /apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions"] = (403, "forbidden")
    await harness.deliver()
    assert harness.organization("kestrel") is not None

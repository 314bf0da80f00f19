"""What is owed to a customer who has paid: the Organization, and the news, whoever fails and whoever is gone meanwhile.

Only the ledger remembers it: the Redemption may be deleted, the leader another one, and the API server may have failed.
"""

from typing import Any

import pytest

from tests.cluster.desk import Desk, reason, settle, spec
from tests.cluster.market import order

CREATE = "POST /apis/catalyst.openova.io"
BROKEN = (500, 'failed calling webhook "organizations.platform": no endpoints available')
REFUSED = (422, "spec.tier: Required value")


async def paid_by_card(desk: Desk, name: str, **changes: Any) -> None:
    """Order, pay, and have the webhook arrive."""
    desk.apply(name, spec(await desk.issue(), **{"tenant": name, "order": order("xl"), **changes}))
    assert (await desk.reconcile(name))["state"] == "AwaitingPayment"
    await settle(desk, desk.market.stripe.pay(str((await desk.purchase(name)).session_id)))


@pytest.mark.parametrize("fault", [BROKEN, REFUSED])
async def test_made_though_the_redemption_is_gone(desk: Desk, fault: tuple[int, str]) -> None:
    """It fails, with the Redemption and without it, and then another replica leads."""
    desk.server.organizations = True
    desk.server.faults[CREATE] = fault
    await paid_by_card(desk, "kestrel")
    assert reason(await desk.reconcile("kestrel"), "OrganizationReady") is not None
    desk.remove("kestrel")
    await desk.deliver()
    await desk.deliver()
    await desk.sql("UPDATE vouchers.purchase SET settled_at = settled_at - interval '1 hour'")
    desk.lead_anew()
    await desk.deliver()
    assert desk.organization("kestrel") is None
    desk.server.faults.clear()
    await desk.deliver()
    assert desk.organization("kestrel") is not None


async def test_nobody_is_asked_again_once_all_is_done(desk: Desk) -> None:
    await paid_by_card(desk, "kestrel")
    assert (await desk.reconcile("kestrel"))["finished"]
    desk.apply("falcon", spec(await desk.issue(), tenant="falcon"))
    assert (await desk.reconcile("falcon"))["finished"]
    await desk.deliver()
    desk.server.calls.clear()
    desk.lead_anew()
    await desk.deliver()
    assert desk.server.calls == []


@pytest.mark.parametrize(
    "path", ["/apis/catalyst.openova.io", "/apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions/kestrel"]
)
async def test_one_that_fails_keeps_no_other(desk: Desk, path: str) -> None:
    """Organization or Redemption of one cannot be asked for; the other customer's hears of the payment all the same."""
    desk.server.organizations = True
    await paid_by_card(desk, "kestrel")
    desk.remove("kestrel")
    await paid_by_card(desk, "falcon")
    desk.server.faults[f"GET {path}"] = BROKEN
    await desk.deliver()
    assert desk.parts.feed.order_queue.knows("billing/falcon")


async def test_a_refund_while_nobody_led(desk: Desk) -> None:
    """An hour ago; the Redemption had finished."""
    await paid_by_card(desk, "kestrel")
    await desk.reconcile("kestrel")
    await desk.deliver()
    await settle(desk, desk.market.stripe.refund(str((await desk.purchase("kestrel")).session_id)))
    await desk.sql("UPDATE vouchers.purchase SET settled_at = settled_at - interval '1 hour'")
    desk.lead_anew()
    await desk.deliver()
    assert desk.parts.feed.order_queue.knows("billing/kestrel")
    assert reason(await desk.reconcile("kestrel")) == ("False", "Refunded")


async def test_a_namespace_that_is_gone_with_its_rights(desk: Desk) -> None:
    """Whether there is a Redemption cannot be seen; the Organization, which is in no namespace, is owed."""
    desk.server.organizations = True
    await paid_by_card(desk, "kestrel")
    desk.remove("kestrel")
    desk.server.faults["GET /apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions"] = (403, "forbidden")
    await desk.deliver()
    assert desk.organization("kestrel") is not None

"""Orders of five kinds, with all actors beside the operator: customers, webhooks, the controller of Organizations.

See also: test_order_kills.py kills the operator meanwhile.
"""

import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final

from testbed.operator_process import OperatorProcess
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.resources import CustomObject, Object, ResourceClient, status
from tests.cluster.stripe_fixture import StripeFixture, awaiting, order
from tests.cluster.test_order_organization import GROUP, Registry
from tests.messaging.helpers import Streams

PAID, LOOKED_UP, COVERED, REFUSED, REFUNDED = "paid", "looked-up", "covered", "refused", "back"
"""Credit and a card, whose webhook comes; the same, and it never comes; credit alone; a checkout that must not be; a
card that is refunded before its payment event is delivered."""


ORDERS: Final[Mapping[str, Object]] = {
    PAID: order("xl", "daily-backup"),
    LOOKED_UP: order("xl", "daily-backup"),
    COVERED: order("m", "waf"),
    REFUSED: order("l"),
    REFUNDED: order("xl", "daily-backup"),
}


PLAN_L: Final = {"id": "l", "slug": "large", "name": "Large", "stripe_price_id": "price_l", "price_omr": 16}
"""A plan that costs more at Stripe than in the catalog: its checkout is made, and must not be paid."""


@dataclass
class OrderScenario:
    """The actors beside the operator: customers, Stripe's webhooks, and the controller of Organizations."""

    api: ResourceClient
    ledger: LedgerReader
    stripe_fixture: StripeFixture
    operator: OperatorProcess
    registry: Registry
    streams: Streams
    code: str = ""
    made: dict[str, CustomObject] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    _post: list[Object] = field(default_factory=list)

    def place(self, name: str, kind: str) -> None:
        """Place an order."""
        customer = {"userID": name, "tenantID": name, "email": "ahmed@example.com"}
        wanted = ORDERS[kind] | {"subdomain": name}
        self.made[name] = self.api.redeem(self.code, name=name, customer=customer, order=wanted)
        self.kinds[name] = kind

    def turn(self, *, post: bool = True) -> None:
        """Do the next step of all actors; `post`: webhooks are delivered, and again until they are accepted."""
        for body in filter(awaiting(), self.api.listed("redemptions")):
            name = body["metadata"]["name"]
            session = self.stripe_fixture.session(self.made[name])
            if session["status"] == "open":
                event = self._pay(session["id"], give_back=self.kinds[name] == REFUNDED)
                self._post += [event] if self.kinds[name] == PAID else []
        for one in self.api.listed("organizations", group=GROUP):
            if "status" not in one:
                self.registry.set_ready(one["metadata"]["name"], "True")
        if post:
            self._post = [event for event in self._post if not self._taken(event)]

    def _pay(self, session: str, *, give_back: bool) -> Object:
        stripe = self.stripe_fixture.stripe
        with stripe.lock:
            event = stripe.pay(session)
            if give_back:
                stripe.refund(session)
        return event

    def finished(self) -> bool:
        """Do the next step; return whether all orders are finished, and nothing waits for NATS or Stripe."""
        self.turn()
        everybody = self.api.listed("redemptions")
        waiting = self.ledger.row(
            "SELECT (SELECT count(*) FROM vouchers.outbox WHERE published_at IS NULL), "
            "(SELECT count(*) FROM vouchers.purchase WHERE state = 'refunded' AND look_at IS NOT NULL)"
        )
        return not self._post and waiting == (0, 0) and all(map(status(finished=True), everybody))

    def _taken(self, event: Object) -> bool:
        try:
            result = self.stripe_fixture.deliver(self.operator, event)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (OSError, HTTPException):
            return False
        # no_change: it was looked up before.
        assert result in ("applied", "duplicate", "no_change")
        return True

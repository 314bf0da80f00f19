"""The operator is killed before and after every step of a purchase: each order ends as without a kill.

Each run is killed at one failpoint, and one more order than before waits for it; the next run, which is killed at the
next failpoint, finds all that the earlier ones left. The last run is not killed: it finishes all, and then some
undisturbed orders. Every other order must equal those, at the API server, in the ledger, at Stripe, in NATS and among
the Organizations.
"""

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from kubernetes.client import ApiClient

from testbed.cluster import Installation
from testbed.control_plane import ControlPlane
from testbed.fork_server import ForkServer
from testbed.nats import NatsServer
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from tests.cluster.ledger_reader import LedgerReader
from tests.cluster.order_scenario import COVERED, LOOKED_UP, ORDERS, PAID, PLAN_L, REFUNDED, REFUSED, OrderScenario
from tests.cluster.resources import FAST, ResourceClient, ready, until
from tests.cluster.stripe_fixture import ADDONS, PLANS, StripeFixture, conditions_of
from tests.cluster.test_order_organization import GROUP, Registry
from tests.messaging.helpers import Message, Streams
from voucher_operator.failpoints import VARIABLE, Step

pytestmark = [pytest.mark.xdist_group("own-cluster"), pytest.mark.long]


REACHED: Final[Mapping[Step, tuple[str, ...]]] = {
    Step.PLACE: (PAID, COVERED),
    Step.STRIPE_CUSTOMER: (PAID,),
    Step.RECORD_CUSTOMER: (PAID,),
    Step.STRIPE_COUPON: (PAID,),
    Step.STRIPE_SESSION: (PAID,),
    Step.RECORD_SESSION: (PAID,),
    Step.STATUS: (PAID,),
    Step.COMPENSATE: (REFUSED,),
    Step.STRIPE_EXPIRE: (REFUSED,),
    Step.RECEIVE: (PAID, LOOKED_UP),
    Step.STRIPE_UNSUBSCRIBE: (REFUNDED,),
    Step.RECORD_ENDED: (REFUNDED,),
    Step.ORGANIZATION: (PAID,),
    Step.PUBLISH: (PAID,),
    Step.MARK_PUBLISHED: (PAID,),
}
"""The kinds of order that reach a failpoint."""


LOOK_UP: Final = "VOUCHER_OPERATOR_SESSION_LOOKUP_INTERVAL"


@dataclass(frozen=True)
class Boundary:
    """The failpoint at which a run is killed, and the order that reaches it."""

    moment: str
    effect: Step
    kind: str

    @property
    def name(self) -> str:
        """Of its order; also its Organization's, its user's and its tenant's."""
        return f"{self.moment}-{self.effect}-{self.kind}".replace("_", "-")

    @property
    def env(self) -> dict[str, str]:
        """The run's own environment. Sessions are not looked up in a run that a webhook's failpoint kills.

        A run that is killed after a lookup began leaves the time of the next one.
        """
        interval = "1" if self.kind in (LOOKED_UP, REFUNDED) else "300" if self.effect is Step.RECEIVE else "5"
        return {VARIABLE: f"{self.moment}:{self.effect}", LOOK_UP: interval}


BOUNDARIES: Final = [
    Boundary(moment, effect, kind)
    for effect, kinds in REACHED.items()
    for kind in kinds
    for moment in ("before", "after")
]


def test_every_failpoint_is_covered() -> None:
    assert set(REACHED) == set(Step)


@pytest.fixture
def control_plane(own_cluster: ControlPlane) -> ControlPlane:
    """A cluster that may have Organizations."""
    return own_cluster


@pytest.fixture
def client(control_plane: ControlPlane) -> Iterator[ApiClient]:
    """An administrator's."""
    with control_plane.client() as client:
        yield client


@pytest.fixture
def registry(control_plane: ControlPlane, client: ApiClient, namespace: str) -> Iterator[Registry]:
    registry = Registry(control_plane, client, "Namespaced", namespace)
    try:
        registry.define()
        yield registry
    finally:
        control_plane.kubectl("delete", "crd", f"organizations.{GROUP}", "--timeout=60s")


@pytest.fixture
def api(client: ApiClient, namespace: str) -> ResourceClient:
    return ResourceClient(client, namespace)


@pytest.fixture
def scenario(
    installation: Installation,
    database18: Database,
    ledger: LedgerReader,
    api: ResourceClient,
    registry: Registry,
    fork_server: ForkServer,
    tmp_path: Path,
) -> Iterator[OrderScenario]:
    """All actors, with an operator that is not started yet."""
    with ExitStack() as stack:
        stripe_fixture = StripeFixture(stack.enter_context(ScriptedStripe()), tmp_path)
        (tmp_path / "catalog.json").write_text(json.dumps({"plans": [*PLANS, PLAN_L], "addons": ADDONS}))
        stripe_fixture.stripe.prices["price_l"] = 17000
        streams = Streams(stack.enter_context(NatsServer()), "kills")
        bus = {"URL": streams.server.url, "STREAM": streams.name, "SUBJECT_PREFIX": streams.prefix}
        operator = OperatorProcess(
            kubeconfig=installation.kubeconfig,
            database_url=database18.runtime_url,
            namespaces=installation.namespaces,
            folder=tmp_path,
            env={
                **installation.env,
                **FAST,
                **stripe_fixture.env,
                **{f"VOUCHER_OPERATOR_NATS_{name}": value for name, value in bus.items()},
            },
            fork_server=fork_server,
        )
        stack.callback(_end, operator)
        yield OrderScenario(api, ledger, stripe_fixture, operator, registry, streams)


def test_order_ends_the_same_when_killed_at_any_failpoint(scenario: OrderScenario) -> None:
    """One run and one SIGKILL for each boundary, and every order ends as it should."""
    voucher = scenario.api.voucher(maxRedemptions=len(BOUNDARIES) + len(ORDERS))
    scenario.code = voucher.code
    for boundary in BOUNDARIES:
        scenario.place(boundary.name, boundary.kind)
        scenario.operator.start(boundary.env)
        until(partial(over, scenario, boundary), f"kill at {boundary.name}")
        assert scenario.operator.returncode == -signal.SIGKILL
    scenario.operator.start({LOOK_UP: "1"})
    until(scenario.finished, "end of what was begun")
    for kind in ORDERS:
        scenario.place(f"undisturbed-{kind}", kind)
    until(scenario.finished, "end of the undisturbed orders")
    assert_all_alike(scenario)
    assert voucher.wait(ready("Issued"))
    scenario.operator.stop()
    assert scenario.operator.unexpected(["rolling back: Stripe would charge"]) == []


def _end(operator: OperatorProcess) -> None:
    if operator.running:
        operator.kill()


def over(scenario: OrderScenario, boundary: Boundary) -> bool:
    """Whether this run has ended; the customers' next step is taken first."""
    scenario.turn(post=boundary.kind not in (LOOKED_UP, REFUNDED))
    return not scenario.operator.running


def assert_all_alike(scenario: OrderScenario) -> None:
    """Compare every order with the undisturbed one of its kind, and the sums with their parts."""
    messages = bus(scenario)
    accounts = {name: collect_order(scenario, name, messages) for name in scenario.made}
    for name, kind in scenario.kinds.items():
        assert accounts[name] == accounts[f"undisturbed-{kind}"], name
    states = {kind: accounts[f"undisturbed-{kind}"]["status"]["state"] for kind in ORDERS}
    ends = {PAID: "Completed", LOOKED_UP: "Completed", COVERED: "Completed", REFUSED: "RolledBack"}
    assert states == ends | {REFUNDED: "Redeemed"}
    assert scenario.stripe_fixture.session(scenario.made[f"undisturbed-{REFUSED}"])["status"] == "expired"
    paid = sum(kind in (PAID, LOOKED_UP) for kind in scenario.kinds.values())
    kept = sum(kind != REFUSED for kind in scenario.kinds.values())
    assert scenario.stripe_fixture.stripe.charged == paid * 23000
    assert scenario.ledger.promo(scenario.code)[3] == kept
    assert scenario.stripe_fixture.stripe.invalid_requests == []
    organizations = scenario.api.listed("organizations", group=GROUP)
    assert len(organizations) == kept - sum(kind == REFUNDED for kind in scenario.kinds.values())
    published = [message.headers["Nats-Msg-Id"] for message in messages]
    assert sorted(published) == sorted(str(id_) for (id_,) in scenario.ledger.rows("SELECT id FROM vouchers.outbox"))


def collect_order(scenario: OrderScenario, name: str, messages: list[Message]) -> dict[str, Any]:
    """Collect what an order wrote everywhere, without what differs between two of a kind."""
    body = scenario.made[name].body()
    order_id = body["status"]["orderID"]
    rows = partial(by_name, scenario.ledger, name)
    return {
        "status": {key: value for key, value in body["status"].items() if key in ("state", "credit", "checkoutURL")},
        "conditions": conditions_of(body),
        "purchase": rows(
            "SELECT state, reason, total_minor, held_minor, due_minor, granted_minor, hold_entry_id IS NULL, "
            "release_entry_id IS NULL, session_id IS NULL FROM vouchers.purchase WHERE user_id = %s"
        ),
        "orders": rows(
            "SELECT o.status, amount_omr, amount_baisa, stripe_session_id IS NULL FROM orders o "
            "JOIN customers c ON c.id = customer_id WHERE user_id = %s"
        ),
        "entries": rows(
            "SELECT amount_minor, amount_omr, reason, order_id IS NULL FROM credit_ledger "
            "JOIN customers c ON c.id = customer_id WHERE user_id = %s ORDER BY 1, 2, 3, 4"
        ),
        "subscriptions": rows(
            "SELECT plan_id, status, stripe_subscription_id IS NULL FROM subscriptions "
            "JOIN customers c ON c.id = customer_id WHERE user_id = %s"
        ),
        "redemptions": rows(
            "SELECT count(*) FROM promo_redemptions JOIN customers c ON c.id = customer_id WHERE user_id = %s"
        ),
        "outbox": rows("SELECT type FROM vouchers.outbox WHERE tenant_id = %s ORDER BY seq"),
        "published": [one.body["type"] for one in messages if one.body["tenant_id"] == name],
        "stripe": at_stripe(scenario, order_id),
        "organizations": [
            one["spec"]["planID"]
            for one in scenario.api.listed("organizations", group=GROUP)
            if one["metadata"]["labels"]["billing.openova.io/order-id"] == order_id
        ],
    }


def at_stripe(scenario: OrderScenario, order_id: str) -> dict[str, Any]:
    """Return what Stripe has of an order, and what the card was charged.

    Whether a checkout without a noted URL is still open does not count: the kill may have come before its end.
    """
    stripe = scenario.stripe_fixture.stripe
    things = (stripe.customers, stripe.coupons, stripe.sessions, stripe.subscriptions)
    customers, coupons, sessions, subscriptions = (
        [one for one in kept.values() if one["metadata"]["order_id"] == order_id] for kept in things
    )
    invoices = [one["invoice"] for one in sessions]
    return {
        "customers": len(customers),
        "coupons": [one["amount_off"] for one in coupons],
        "sessions": [(one["amount_total"], one["status"] == "complete") for one in sessions],
        "subscriptions": [one["status"] for one in subscriptions],
        "charged": [one["charge"]["amount"] for one in stripe.payments.values() if one["invoice"]["id"] in invoices],
    }


def by_name(ledger: LedgerReader, name: str, query: Any) -> list[tuple[Any, ...]]:
    """Read the rows of a user or a tenant in the ledger."""
    return ledger.rows(query, name)


def bus(scenario: OrderScenario) -> list[Message]:
    """Return all that NATS has."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, scenario.streams.read()).result()

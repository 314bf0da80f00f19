"""Two hundred orders under faults: after cuts and kills, every order agrees with the money."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.nats import NatsServer
from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from tests.cluster.chaos import CODE, SLOW_PROCESS_LOG, ChaosContext, chaos_seed, reasons
from tests.cluster.chaos_client import Body, until
from tests.cluster.order_faults import FaultInjector
from tests.cluster.order_load import CAP, CAPPED, Order, OrderLoad, Progress, add_balances, make_orders
from tests.cluster.proxy import Proxy
from tests.cluster.resources import FAST
from tests.cluster.stripe_fixture import ADDONS, PLANS, StripeFixture, order
from tests.conftest import Operators
from tests.messaging.helpers import Streams
from voucher_operator.ledger.admin.verify import verify

LONG = 150.0
ALLOWED = (
    SLOW_PROCESS_LOG,
    r"the ledger cannot be used",
    r"events are not published",
    r"rolling back",
    r"a checkout (may stay|stays) open",
    r"event not processed",
)
FLEXI = {"id": "flexi", "slug": "flexi", "name": "Flexi", "stripe_price_id": "", "price_omr": 0}


@pytest.fixture
def stripe() -> Iterator[ScriptedStripe]:
    with ScriptedStripe() as server:
        yield server


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture
def proxies(
    stripe: ScriptedStripe, nats: NatsServer, database18: Database, tmp_path: Path
) -> Iterator[dict[str, Proxy]]:
    """Proxies between the operator and its servers."""
    postgres = urlsplit(database18.runtime_url)
    targets = {
        "postgres": f"{postgres.hostname}:{postgres.port}",
        "nats": f"127.0.0.1:{nats.port}",
        "stripe": f"127.0.0.1:{stripe.port}",
    }
    folders = {name: tmp_path / name for name in targets}
    for folder in folders.values():
        folder.mkdir()
    with (
        Proxy(targets["postgres"], folders["postgres"]) as one,
        Proxy(targets["nats"], folders["nats"]) as two,
        Proxy(targets["stripe"], folders["stripe"]) as three,
    ):
        one.add_latency(2)
        two.add_latency(200)
        three.add_latency(20)
        yield {"postgres": one, "nats": two, "stripe": three}


@pytest.fixture
def env(
    stripe: ScriptedStripe, proxies: dict[str, Proxy], streams: Streams, database18: Database, tmp_path: Path
) -> dict[str, str]:
    """The operator's environment: every connection leads through a proxy."""
    catalog = tmp_path / "with-flexi.json"
    catalog.write_text(json.dumps({"plans": [*PLANS, FLEXI], "addons": ADDONS}))
    postgres = urlsplit(database18.runtime_url)
    login = f"{postgres.username}:{postgres.password}"
    return {
        **FAST,
        **StripeFixture(stripe, tmp_path).env,
        "DATABASE_URL": postgres._replace(netloc=f"{login}@{proxies['postgres'].address}").geturl(),
        "VOUCHER_OPERATOR_STRIPE_API_BASE": f"http://{proxies['stripe'].address}",
        "VOUCHER_OPERATOR_STRIPE_TIMEOUT": "3",
        "VOUCHER_OPERATOR_CATALOG_FILE": str(catalog),
        "VOUCHER_OPERATOR_SESSION_LOOKUP_INTERVAL": "3",
        "VOUCHER_OPERATOR_NATS_URL": f"nats://{proxies['nats'].address}",
        "VOUCHER_OPERATOR_NATS_STREAM": streams.name,
        "VOUCHER_OPERATOR_NATS_SUBJECT_PREFIX": streams.prefix,
    }


@pytest.fixture
def streams(nats: NatsServer) -> Streams:
    return Streams(nats, "chaos")


async def test_ledger_and_statuses_agree_after_two_hundred_orders_under_faults(
    context: ChaosContext,
    operators: Operators,
    stripe: ScriptedStripe,
    streams: Streams,
    proxies: dict[str, Proxy],
    env: dict[str, str],
) -> None:
    """PostgreSQL, NATS and Stripe are cut, Stripe fails, the operator is killed; then all faults are cleared."""
    seed = chaos_seed()
    operators.allow += ALLOWED
    orders = make_orders(random.Random(f"{seed} orders"))
    operator = operators.start("buyer", env)
    await context.voucher()
    await context.voucher("capped", CAPPED, maxRedemptions=CAP)
    await context.voucher_is(Ready="Issued")
    await context.voucher_is("capped", Ready="Issued")
    await add_balances(context, orders)
    async with Progress.of(context) as progress, asyncio.TaskGroup() as group:
        load = OrderLoad(context, progress, orders, stripe, operator, random.Random(f"{seed} load"))
        faults = FaultInjector(context, progress, load, operator, stripe, proxies, random.Random(f"{seed} faults"))
        buying = group.create_task(load.order())
        paying = group.create_task(load.pay())
        await faults.run_until_settled()
        await buying
        await wait_until_settled(load)
        paying.cancel()
    print(f"open at each kill: {faults.kills}; cuts: {Counter(faults.cuts)}; faults: {Counter(faults.stripe_faults)}")
    print(f"webhooks sent again: {load.sent_again}")
    assert any(faults.kills), "the operator was never killed in the middle of a purchase"

    await statuses_match(context, orders)
    await wait_published(context, streams)
    assert await verify(context.database.runtime_url) == []
    assert stripe.invalid_requests == []
    await money_agrees(context, stripe)
    await nothing_twice(context, stripe)
    await outcomes(context, orders)
    await context.counters_agree()
    await context.counters_agree("capped")


async def wait_until_settled(load: OrderLoad) -> None:
    """Wait until every purchase is where its customer has left it."""
    left: dict[str, str] = {}

    async def all_are() -> bool:
        left.clear()
        left.update(await load.unsettled())
        return not left

    await until(all_are, left, LONG)


async def statuses_match(context: ChaosContext, orders: list[Order]) -> None:
    """Wait until every status agrees with the ledger."""
    wrong: dict[str, Any] = {}

    async def all_are() -> bool:
        wrong.clear()
        bodies, ledger = await context.redemptions(), await from_ledger(context, orders)
        wrong.update(
            {
                name: (from_status(bodies[name]), ledger[name])
                for name in bodies
                if from_status(bodies[name]) != ledger[name]
            }
        )
        return not wrong

    await until(all_are, wrong, LONG)
    assert set(await context.redemptions()) == {one.name for one in orders if not one.deleted}


def from_status(body: Body) -> tuple[Any, ...]:
    """Return state, whether it is finished, the reason of Ready, the order and the URL."""
    status = body.get("status", {})
    names = ("orderID", "checkoutURL")
    ready = reasons(body).get("Ready")
    return status.get("state"), bool(status.get("finished")), ready, *(status.get(name) for name in names)


async def from_ledger(context: ChaosContext, orders: list[Order]) -> dict[str, tuple[Any, ...]]:
    """Return what the statuses must be by the ledger, in the shape of `from_status`."""
    rows = await context.sql(
        "SELECT split_part(key, '/', 2), state, reason, order_id::text, checkout_url FROM vouchers.purchase"
    )
    bought = {name: values for name, *values in rows}
    refused = dict(
        await context.sql("SELECT split_part(key, '/', 2), reason FROM vouchers.redemption WHERE outcome = 'refused'")
    )
    found: dict[str, tuple[Any, ...]] = {}
    for one in orders:
        if one.name in bought:
            found[one.name] = _of_purchase(one, *bought[one.name])
        else:
            reason = refused.get(one.name) if one.sold else "InvalidOrder"
            found[one.name] = ("Rejected", True, reason, None, None)
    return found


def _of_purchase(one: Order, state: str, reason: str | None, order_id: str, url: str | None) -> tuple[Any, ...]:
    match state:
        case "completed":
            return "Completed", True, "Completed", order_id, None
        case "awaiting_payment":
            return "AwaitingPayment", False, "AwaitingPayment", order_id, url
        case "rolled_back":
            return "RolledBack", True, reason, order_id, None
        case _:
            return "Redeemed" if one.code else "RolledBack", True, reason, order_id, None


async def wait_published(context: ChaosContext, streams: Streams) -> None:
    """Every event is marked, and the stream has it exactly once; each tenant's in the order of the ledger."""

    async def all_are() -> bool:
        return await context.sql("SELECT count(*) FROM vouchers.outbox WHERE published_at IS NULL") == [(0,)]

    await until(all_are, "end of the outbox", LONG)
    rows = await context.sql("SELECT id::text, tenant_id FROM vouchers.outbox ORDER BY seq")
    messages = [message.body for message in await streams.read()]
    assert Counter(one["id"] for one in messages) == Counter(event_id for event_id, _ in rows)
    redeemed = await context.sql("SELECT key FROM vouchers.redemption WHERE outcome IN ('redeemed', 'undone')")
    events_of = Counter(one["data"]["key"] for one in messages if one["type"] == "voucher.redeemed")
    assert events_of == Counter(key for (key,) in redeemed)
    tenants = {tenant for _, tenant in rows if tenant}
    assert {tenant: [one["id"] for one in messages if one["tenant_id"] == tenant] for tenant in tenants} == {
        tenant: [event_id for event_id, of in rows if of == tenant] for tenant in tenants
    }


async def money_agrees(context: ChaosContext, stripe: ScriptedStripe) -> None:
    """Cards were charged what the credit does not cover, for completed orders only."""
    rows = await context.sql(
        "SELECT order_id::text, total_minor - held_minor FROM vouchers.purchase "
        "WHERE state = 'completed' AND total_minor > held_minor"
    )
    paid = {
        one["metadata"]["order_id"]: one["amount_total"]
        for one in stripe.sessions.values()
        if one["payment_status"] == "paid" and not _refunded(stripe, one)
    }
    assert paid == dict(rows)
    assert stripe.charged == sum(due for _, due in rows) > 0


def _refunded(stripe: ScriptedStripe, session: dict[str, Any]) -> bool:
    (payment,) = (one for one in stripe.payments.values() if one["invoice"]["id"] == session["invoice"])
    return bool(payment["charge"]["refunded"])


async def nothing_twice(context: ChaosContext, stripe: ScriptedStripe) -> None:
    """One session, one spend, one event and one subscription for an order, at most."""
    sessions = Counter(one["metadata"]["order_id"] for one in stripe.sessions.values())
    assert [order_id for order_id, number in sessions.items() if number > 1] == []
    spent = (
        "SELECT order_id FROM credit_ledger WHERE order_id <> '' AND amount_minor < 0 GROUP BY 1 HAVING count(*) > 1"
    )
    assert await context.sql(spent) == []
    orders = await context.sql("SELECT id::text FROM orders WHERE status IN ('completed', 'refunded') ORDER BY 1")
    subscribed = await context.sql("SELECT id::text FROM subscriptions ORDER BY 1")
    completed = await context.sql("SELECT id::text FROM orders WHERE status = 'completed' ORDER BY 1")
    placed = await context.sql("SELECT data ->> 'id' FROM vouchers.outbox WHERE type = 'order.placed' ORDER BY 1")
    assert set(completed) <= set(subscribed) <= set(orders)
    assert set(completed) <= set(placed) <= set(orders)
    assert len(set(subscribed)) == len(subscribed)
    assert len(set(placed)) == len(placed)


async def outcomes(context: ChaosContext, orders: list[Order]) -> None:
    """Each kind of order reached its end."""
    kept = [one for one in orders if not one.deleted]
    ledger = await from_ledger(context, kept)
    ends = {one.name: ledger[one.name][0] for one in kept}
    covered = [one for one in kept if one.code == CODE and one.order == order("m", "waf")]
    assert {ends[one.name] for one in covered} == {"Completed"}
    assert {ends[one.name] for one in orders if one.order["planID"] == "flexi"} == {"Completed"}
    assert {ends[one.name] for one in orders if not one.sold or one.code == "CHAOS-UNKNOWN"} == {"Rejected"}
    print(f"ends: {Counter(ends.values())}")
    assert {"Completed", "AwaitingPayment", "RolledBack", "Redeemed", "Rejected"} == set(ends.values())
    standing = await context.sql("SELECT count(*) FROM promo_redemptions WHERE code = %s", CAPPED)
    assert standing[0][0] <= CAP

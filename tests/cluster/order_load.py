"""A load of two hundred orders, and what their customers do at Stripe's checkout.

Stripe's webhooks are sent again until they are taken, or never come. A seed repeats all random choices. See also:
`order_faults` injects faults meanwhile, `test_order_chaos` checks the result; testbed/scripted_stripe.py keeps what was
charged.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import aiohttp
import psycopg

from testbed.operator_process import OperatorProcess
from testbed.scripted_stripe import ScriptedStripe
from testbed.stripe_customers import signed
from tests.cluster.chaos import CODE, ChaosContext
from tests.cluster.stripe_fixture import SECRET, order

CAPPED: Final = "CHAOS-CAPPED"
CAP: Final = 6
_BALANCE: Final = 7000
"""The balance of some customers, in minor units: enough for one of their two orders, and a part of the other."""


class CheckoutAction(StrEnum):
    """What a customer does with a checkout."""

    PAYS = "pays"
    PAYS_WITHOUT_WEBHOOK = "unheard"
    """Pays, and the webhook never comes."""
    PAYS_WITH_TWO_WEBHOOKS = "twice"
    """Pays, and the webhook comes twice at once."""
    PAYS_LATER = "later"
    """The money arrives some time after the checkout."""
    PAYMENT_FAILS = "bounces"
    """The money never arrives."""
    EXPIRES = "leaves"
    """The checkout expires."""
    REFUNDED = "returns"
    """Pays and gets it back; the two webhooks come in any order."""
    STAYS_OPEN = "never"
    """Has not paid yet."""


ENDS: Final[Mapping[CheckoutAction, str]] = {
    CheckoutAction.PAYS: "completed",
    CheckoutAction.PAYS_WITHOUT_WEBHOOK: "completed",
    CheckoutAction.PAYS_WITH_TWO_WEBHOOKS: "completed",
    CheckoutAction.PAYS_LATER: "completed",
    CheckoutAction.PAYMENT_FAILS: "cancelled",
    CheckoutAction.EXPIRES: "cancelled",
    CheckoutAction.REFUNDED: "refunded",
    CheckoutAction.STAYS_OPEN: "awaiting_payment",
}
"""The state of a purchase after this action."""


@dataclass(frozen=True)
class Order:
    """One Redemption that buys, and what its customer does."""

    name: str
    user: str
    code: str | None
    order: Mapping[str, Any]
    action: CheckoutAction
    sold: bool = True
    deleted: bool = False
    """Deleted while the operator is not running."""


def make_orders(rng: random.Random) -> list[Order]:
    """Make up two hundred orders, in any order."""
    made: list[Order] = []

    def add(number: int, code: str | None, *wanted: str, **more: Any) -> None:
        for _ in range(number):
            n = len(made)
            user = more.get("user", f"user-{n}")
            (action,) = rng.choices(list(CheckoutAction), weights=(8, 3, 2, 2, 1, 2, 2, 2))
            known = {key: value for key, value in more.items() if key != "user"}
            made.append(Order(f"r{n}", user, code, order(*wanted), action, **known))

    add(60, CODE, "m", "waf")
    add(50, CODE, "xl", "daily-backup")
    add(6, CODE, "xl", deleted=True)
    add(12, CODE, "m", "daily-backup")
    add(12, CAPPED, "xl")
    for pair in range(12):
        add(1, None, "s", user=f"rich-{pair}")
        add(1, None, "m", user=f"rich-{pair}")
    add(18, None, "s")
    add(8, None, "flexi")
    add(3, CODE, "xxl", sold=False)
    add(3, CODE, "m", "moon", sold=False)
    add(4, "CHAOS-UNKNOWN", "m")
    rng.shuffle(made)
    return made


async def add_balances(context: ChaosContext, orders: list[Order]) -> None:
    """Give some customers a balance before the orders."""
    await context.sql(
        "WITH c AS (INSERT INTO customers (user_id, tenant_id, email) SELECT u, u, 'rich@example.com' "
        "FROM unnest(%s::text[]) AS u RETURNING id) INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, "
        "reason) SELECT id, vouchers.floor_to_major(%s), %s, 'gift' FROM c",
        sorted({one.user for one in orders if one.user.startswith("rich")}),
        _BALANCE,
        _BALANCE,
    )


@dataclass
class Progress:
    """Reads the progress of the ledger over a connection of its own, which is never cut."""

    connection: psycopg.AsyncConnection[Any]

    @classmethod
    @asynccontextmanager
    async def of(cls, context: ChaosContext) -> AsyncIterator["Progress"]:
        """Connect."""
        url = context.database.admin_url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            yield cls(connection)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query."""
        cursor = await self.connection.execute(query.encode())
        return list(await cursor.fetchall())

    async def steps(self) -> int:
        """Return a number that grows with every step of a purchase."""
        ((steps,),) = await self.rows(
            "SELECT count(*) + count(stripe_customer_id) + count(session_id) + count(settled_at) FROM vouchers.purchase"
        )
        return int(steps)

    async def published(self) -> int:
        """Count the events that are marked as published."""
        ((number,),) = await self.rows("SELECT count(published_at) FROM vouchers.outbox")
        return int(number)


class OrderLoad:
    """Orders and pays."""

    def __init__(
        self,
        context: ChaosContext,
        progress: Progress,
        orders: list[Order],
        stripe: ScriptedStripe,
        operator: OperatorProcess,
        rng: random.Random,
    ) -> None:
        self._here = context
        self._progress = progress
        self._stripe = stripe
        self._url = f"http://127.0.0.1:{operator.webhook_port}/billing/webhook"
        self._rng = rng
        self.orders = {f"{context.namespace}/{one.name}": one for one in orders}
        self.sent_again = 0
        """Webhook calls that were not taken."""

    async def order(self) -> None:
        """Create all Redemptions at once."""

        async def one(wanted: Order) -> None:
            customer = {"userID": wanted.user, "tenantID": wanted.user, "email": f"{wanted.user}@example.com"}
            await self._here.redeem([wanted.name], wanted.code, customer=customer, order=dict(wanted.order))

        await asyncio.gather(*(one(wanted) for wanted in self.orders.values()))

    async def pay(self) -> None:
        """Go through every checkout that the ledger shows, once, until cancelled."""
        gone: set[str] = set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as http, asyncio.TaskGroup() as group:
            while True:
                for key, session in await self._progress.rows(
                    "SELECT key, session_id FROM vouchers.purchase WHERE state = 'awaiting_payment'"
                ):
                    if key not in gone:
                        gone.add(key)
                        group.create_task(self._check_out(http, self.orders[key].action, session))
                await asyncio.sleep(0.2)

    async def unsettled(self) -> dict[str, str]:
        """Return what is not at its end, by key."""
        bought = await self._progress.rows("SELECT key, state, due_minor FROM vouchers.purchase")
        states = {key: (state, due) for key, state, due in bought}
        answered = {key for (key,) in await self._progress.rows("SELECT key FROM vouchers.redemption")}
        found = {}
        for key, wanted in self.orders.items():
            if key in states:
                state, due = states[key]
                if not (state == "rolled_back" or state == (ENDS[wanted.action] if due else "completed")):
                    found[key] = f"{wanted.action}: {state}"
            elif wanted.sold and not wanted.deleted and key not in answered:
                found[key] = "not answered"
        return found

    async def _check_out(self, http: aiohttp.ClientSession, action: CheckoutAction, session: str) -> None:
        await asyncio.sleep(self._rng.uniform(0, 1))
        match action:
            case CheckoutAction.PAYS:
                await self._send(http, self._stripe.pay(session))
            case CheckoutAction.PAYS_WITHOUT_WEBHOOK:
                self._stripe.pay(session)
            case CheckoutAction.PAYS_WITH_TWO_WEBHOOKS:
                event = self._stripe.pay(session)
                await asyncio.gather(self._send(http, event), self._send(http, event))
            case CheckoutAction.PAYS_LATER:
                events = self._stripe.pay(session, later=True), self._stripe.payment_succeeds(session)
                await self._send_shuffled(http, *events)
            case CheckoutAction.PAYMENT_FAILS:
                events = self._stripe.pay(session, later=True), self._stripe.payment_fails(session)
                await self._send_shuffled(http, *events)
            case CheckoutAction.EXPIRES:
                await self._send(http, self._stripe.expire(session))
            case CheckoutAction.REFUNDED:
                await self._send_shuffled(http, self._stripe.pay(session), self._stripe.refund(session))

    async def _send_shuffled(self, http: aiohttp.ClientSession, *events: dict[str, Any]) -> None:
        for event in self._rng.sample(events, len(events)):
            await self._send(http, event)

    async def _send(self, http: aiohttp.ClientSession, event: dict[str, Any]) -> None:
        """Call the webhook until it takes the event, as Stripe does for days."""
        while True:
            body, headers = signed(event, SECRET)
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with http.post(self._url, data=body, headers=headers) as answer:
                    if answer.status == 200:
                        return
                    assert answer.status >= 500, await answer.text()
            self.sent_again += 1
            await asyncio.sleep(0.5)

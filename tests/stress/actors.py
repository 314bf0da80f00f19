"""The actors of the mixed load: two operators, the Go service, webhooks, and an administrator who edits Vouchers.

Each actor does one random thing at a time until the load ends. What it may be refused is named; any other error fails
the test. See also: `test_mixed`.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tests.ledger.go_service import GoService, RedemptionRefused
from tests.ledger.helpers import redeem_request, terms
from tests.ledger.purchase_helpers import purchase_request
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Payment, PaymentEffect, PaymentEvent, Purchase, PurchaseState
from voucher_operator.ledger.types import RedeemRequest, VoucherOwner, VoucherTerms
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.resources.reasons import Reason

USERS = [f"user-{n}" for n in range(40)]
CODES = [f"CODE-{n}" for n in range(12)]
RESPELLED = [f"OTHER-{n}" for n in range(400)]
"""Issued by the Go service in lower case, adopted by a Voucher, and issued once more in their normal spelling."""


@dataclass(slots=True)
class LoadContext:
    """What all actors share."""

    ledgers: list[Ledger]
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    requests: list[RedeemRequest] = field(default_factory=list)
    generations: Counter[str] = field(default_factory=Counter)
    events: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    respelled: int = 0

    @property
    def ledger(self) -> Ledger:
        """One of the two operators."""
        return self.rng.choice(self.ledgers)

    def code(self) -> str:
        """A code that is often used, or one that is in two spellings or about to be."""
        if self.respelled and self.rng.random() < 0.3:
            return self.rng.choice(RESPELLED[max(0, self.respelled - 3) : self.respelled])
        return self.rng.choice(CODES)

    def terms(self, code: str) -> VoucherTerms:
        """Make a Voucher's next spec, with a cap and a credit in fractions."""
        self.generations[code] += 1
        return terms(
            code,
            uid=f"uid-{code}",
            name=code.lower(),
            generation=self.generations[code],
            credit_minor=self.rng.choice((900, 10_000, 10_500, 25_500)),
            max_redemptions=self.rng.choice((0, 5, 20, 200)),
        )


Actor = Callable[[LoadContext], Awaitable[None]]


async def run(context: LoadContext, actors: list[Actor], seconds: float) -> None:
    """Have every actor act again and again. A ledger that is busy for a moment is no fault."""
    end = asyncio.get_running_loop().time() + seconds

    async def act(actor: Actor) -> None:
        name = getattr(actor, "__name__", "go")
        while asyncio.get_running_loop().time() < end:
            try:
                await actor(context)
                context.counts[name] += 1
            except LedgerUnavailableError as error:
                context.counts[f"{name}: {error.message}"] += 1

    async with asyncio.TaskGroup() as group:
        for actor in actors:
            group.create_task(act(actor))


async def redeem(context: LoadContext) -> None:
    """Redeem with a new key, or ask an old one again at any operator."""
    if context.requests and context.rng.random() < 0.3:
        await context.ledger.redeem(context.rng.choice(context.requests[-200:]))
        return
    request = redeem_request(context.code(), context.rng.choice(USERS), provisional=context.rng.random() < 0.2)
    context.requests.append(request)
    await context.ledger.redeem(request)


async def edit(context: LoadContext) -> None:
    """Issue or edit a Voucher, or revoke it, or look at all counters."""
    code = context.rng.choice(CODES)
    choice = context.rng.random()
    if choice < 0.6:
        await context.ledger.put(context.terms(code))
    elif choice < 0.7:
        await context.ledger.revoke(VoucherOwner(f"uid-{code}", "billing", code.lower()))
    else:
        await context.ledger.counters()


async def order(context: LoadContext) -> None:
    """Buy with credit and, for the rest, a card; at two operators at once now and then."""
    code = context.code() if context.rng.random() < 0.5 else ""
    request = purchase_request(
        context.rng.choice((400, 9_000, 19_500, 40_000)),
        redeem=redeem_request(code, context.rng.choice(USERS)),
        payable=context.rng.random() < 0.7,
    )
    both = [ledger.purchase(request) for ledger in context.ledgers[: context.rng.choice((1, 2))]]
    results = await asyncio.gather(*both)
    purchase = results[0].purchase
    if purchase is not None and purchase.state is PurchaseState.PENDING:
        await _pay(context, purchase)


async def _pay(context: LoadContext, purchase: Purchase) -> None:
    """Bring a checkout to one of its ends; events come twice, late, and in any order."""
    if context.rng.random() < 0.2:
        await context.ledger.compensate(purchase.key, Reason.PAYMENT_REJECTED)
        return
    session = f"cs_{purchase.order_id}"
    await context.ledger.record_session(purchase.key, session, "https://pay", datetime.now(UTC) + timedelta(hours=1))
    paid = _event(context, purchase, PaymentEffect.PAID)
    second = replace(
        paid, event_id=f"evt_{next(context.events)}", session_id=f"{session}_b", payment=Payment(f"pi_{session}_b")
    )
    ends: list[list[PaymentEvent]] = [
        [paid, paid],
        [_event(context, purchase, PaymentEffect.EXPIRED)],
        [_event(context, purchase, PaymentEffect.FAILED)],
        [paid, _event(context, purchase, PaymentEffect.REFUNDED)],
        [paid, second, replace(second, event_id=f"evt_{next(context.events)}", effect=PaymentEffect.REFUNDED)],
    ]
    events = context.rng.choice(ends)
    context.rng.shuffle(events)
    for event in events:
        await context.ledger.receive(event)


def _event(context: LoadContext, purchase: Purchase, effect: PaymentEffect) -> PaymentEvent:
    return PaymentEvent(
        event_id=f"evt_{next(context.events)}",
        type=f"test.{effect}",
        effect=effect,
        raw=b"{}",
        session_id=f"cs_{purchase.order_id}",
        order_id=purchase.order_id,
        amount_minor=purchase.due_minor if effect is PaymentEffect.PAID else None,
        payment=Payment(f"pi_{purchase.order_id}"),
    )


def go_service(go: GoService) -> Actor:
    """Make one connection of the Go service: it redeems, undoes, spends what is there, edits and respells."""

    async def act(context: LoadContext) -> None:
        user, code, choice = context.rng.choice(USERS), context.rng.choice(CODES), context.rng.random()
        customer = await go.customer(user)
        try:
            if choice < 0.4:
                await go.redeem(customer, code)
            elif choice < 0.55:
                await go.undo(customer, code)
            elif choice < 0.75:
                if await go.balance(customer) >= 3:
                    await go.spend(customer, 3)
            elif choice < 0.8:
                await go.issue(code, context.rng.choice((1, 7)), max_redemptions=context.rng.choice((0, 50)))
            elif choice < 0.83:
                await go.revoke(code)
            elif choice < 0.86:
                await _respell(context, go)
        except RedemptionRefused:
            context.counts["go: refused"] += 1

    return act


async def _respell(context: LoadContext, go: GoService) -> None:
    """Issue a code in lower case, have a Voucher adopt it, and issue it in normal spelling under everybody's hands."""
    if context.respelled == len(RESPELLED):
        return
    code = RESPELLED[context.respelled]
    await go.issue(code.lower(), 10, max_redemptions=2)
    context.respelled += 1
    voucher = replace(context.terms(code), max_redemptions=2)
    await context.ledger.put(voucher)
    await asyncio.sleep(0.05)
    await go.issue(code, 10, max_redemptions=2)
    await context.ledger.put(voucher)

"""Every order of the statements of two or three sessions keeps the invariants.

Each schedule has a code of its own with cap 1 and customers of its own; when all are done, `verify` looks at the whole
ledger. "Issue" is one statement of a third party, the Go service's admin page, between any two of the others.

See also: `interleaving` steps the sessions; docs/architecture.md redeem_outcome why no order can break the cap.
"""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, open_ledger, redeem_request, rows, terms
from tests.ledger.interleaving import Operation, Run, Sessions, SteppedConnection, explore, open_sessions
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.batch import purchase_batch
from voucher_operator.ledger.redemption.redeem import redeem_batch
from voucher_operator.ledger.types import VoucherOwner, VoucherTerms
from voucher_operator.ledger.voucher import vouchers
from voucher_operator.resources.reasons import Reason

_numbers = itertools.count(1)

# The methods of Case that make an operation: a name that is none of them is a type error.
Name = Literal[
    "redeem", "buy", "buy_as_rita", "put", "revoke", "compensate",
    "issue", "respell", "go_redeem", "go_undo", "go_spend",
]  # fmt: skip


@dataclass(slots=True)
class Case:
    """What one schedule works on: a code in its normal spelling, and what `given` has made of it."""

    ledger: Ledger
    go: GoService
    code: str = field(default_factory=lambda: f"CODE-{next(_numbers)}")
    ordered_key: str = ""
    customers: dict[str, Any] = field(default_factory=dict)

    def terms(self) -> VoucherTerms:
        return terms(self.code, uid=f"uid-{self.code}", name=self.code.lower(), credit_minor=10_500, max_redemptions=1)

    def user(self, name: str) -> str:
        return f"{name}-{self.code}"

    def redeem(self, name: str = "anna") -> Operation:
        request = redeem_request(self.code, self.user(name), provisional=True)
        return lambda session: redeem_batch(session, [request])  # type: ignore[arg-type]

    def buy(self, name: str = "bert") -> Operation:
        request = purchase_request(9_000, redeem=redeem_request(self.code, self.user(name), provisional=True))
        return lambda session: purchase_batch(session, [request])  # type: ignore[arg-type]

    def put(self) -> Operation:
        return lambda session: vouchers.put(session, self.terms())  # type: ignore[arg-type]

    def revoke(self) -> Operation:
        owner = VoucherOwner(f"uid-{self.code}", "billing", self.code.lower())
        return lambda session: vouchers.revoke(session, owner)  # type: ignore[arg-type]

    def compensate(self) -> Operation:
        return lambda session: purchases.compensate(session, self.ordered_key, Reason.ABANDONED)  # type: ignore[arg-type]

    def issue(self) -> Operation:
        return lambda session: _go(session).issue(self.code, 10, max_redemptions=1)

    def respell(self) -> Operation:
        return lambda session: _go(session).issue(self.code.lower(), 10, max_redemptions=1)

    def go_redeem(self) -> Operation:
        return lambda session: _go(session).redeem(self.customers["gina"], self.code)

    def go_undo(self) -> Operation:
        return lambda session: _go(session).undo(self.customers["rita"], self.code)

    def go_spend(self) -> Operation:
        return lambda session: _go(session).spend(self.customers["rita"], 9)

    def buy_as_rita(self) -> Operation:
        request = purchase_request(9_000, redeem=redeem_request("", self.user("rita")))
        return lambda session: purchase_batch(session, [request])  # type: ignore[arg-type]


def _go(session: SteppedConnection) -> GoService:
    return GoService(session)  # type: ignore[arg-type]


Given = Callable[[Case], Awaitable[None]]


async def nothing(case: Case) -> None:
    """No row has the code yet; the Go service knows a customer."""
    case.customers["gina"] = await case.go.customer(case.user("gina"))


async def issued(case: Case) -> None:
    """A Voucher has issued it."""
    await nothing(case)
    await case.ledger.put(case.terms())


async def issued_in_lower_case(case: Case) -> None:
    """The Go service has issued it, in another spelling, and nobody has used it."""
    await nothing(case)
    await case.go.issue(case.code.lower(), 10, max_redemptions=1)


async def used(case: Case) -> None:
    """A Voucher has issued it, and rita has redeemed it."""
    await issued(case)
    await case.ledger.redeem(redeem_request(case.code, case.user("rita")))
    case.customers["rita"] = await case.go.customer(case.user("rita"))


async def ordered(case: Case) -> None:
    """A Voucher has issued it, and rita has redeemed it with an order whose checkout is still to be made."""
    await issued(case)
    placed = await place_purchase(
        case.ledger, purchase_request(50_000, redeem=redeem_request(case.code, case.user("rita")))
    )
    case.ordered_key, case.customers["rita"] = placed.key, await case.go.customer(case.user("rita"))


TWO_GRANTS_AND_AN_ISSUE: dict[str, tuple[Given, tuple[Name, ...]]] = {
    "redeem-redeem-issue": (nothing, ("redeem", "redeem", "issue")),
    "redeem-go_redeem-issue": (nothing, ("redeem", "go_redeem", "issue")),
    "redeem-redeem-normal-spelling": (issued_in_lower_case, ("redeem", "redeem", "issue")),
    "redeem-redeem-respell": (nothing, ("redeem", "redeem", "respell")),
}
GRANTS: tuple[Name, ...] = ("redeem", "buy", "go_redeem")
GO_SERVICE: tuple[Name, ...] = ("issue", "respell", "go_redeem", "go_undo", "go_spend")
OTHERS: tuple[Name, ...] = ("redeem", "buy", "put", "revoke", "respell", "issue", "go_redeem")
AFTER_A_USE: tuple[tuple[Name, Name], ...] = (
    *(("go_undo", other) for other in OTHERS if other != "issue"),
    ("put", "put"), ("put", "revoke"), ("put", "issue"), ("put", "respell"),
    ("go_spend", "buy_as_rita"), ("go_undo", "buy_as_rita"),
)  # fmt: skip
AFTER_AN_ORDER: tuple[Name, ...] = (
    *(other for other in OTHERS if other != "issue"),
    "compensate", "go_undo", "go_spend", "buy_as_rita",
)  # fmt: skip
PAIRS: dict[str, tuple[Given, tuple[Name, ...]]] = {
    f"{given.__name__}-{one}-{two}": (given, (one, two))
    for given in (nothing, issued)
    for one in GRANTS
    for two in OTHERS
    if two not in GRANTS[: GRANTS.index(one)] and (one, two) != ("go_redeem", "go_redeem")
}
PAIRS |= {f"used-{one}-{two}": (used, (one, two)) for one, two in AFTER_A_USE}
PAIRS |= {f"ordered-compensate-{two}": (ordered, ("compensate", two)) for two in AFTER_AN_ORDER}


async def try_all(database: Database, given: Given, names: tuple[Name, ...], preemptions: int | None) -> int:
    """Run every schedule; the number of schedules. An answer that is no refusal and no result fails."""
    schedules = 0
    async with AsyncExitStack() as stack:
        sessions = await stack.enter_async_context(open_sessions(database))
        ledger = await stack.enter_async_context(open_ledger(database.runtime_url))
        go = await stack.enter_async_context(GoService.connect(database.owner_url))

        async def once(schedule: Sequence[int]) -> Run:
            case = Case(ledger, go)
            await given(case)
            return await sessions.scheduler.run(_sessions(sessions, names), _operations(case, names), schedule)

        async for run in explore(once, preemptions=preemptions):
            schedules += 1
            assert [a for a in run.answers if isinstance(a, psycopg.Error)] == [], run
    return schedules


def _sessions(sessions: Sessions, names: tuple[Name, ...]) -> list[SteppedConnection]:
    return [sessions.go_services[n] if name in GO_SERVICE else sessions.replicas[n] for n, name in enumerate(names)]


def _operations(case: Case, names: tuple[Name, ...]) -> list[Operation]:
    """Two of one kind are of two customers."""
    people = iter(("anna", "bert"))
    return [getattr(case, name)(next(people)) if name in ("redeem", "buy") else getattr(case, name)() for name in names]


async def check(database: Database, names: tuple[Name, ...] = ()) -> None:
    """Every invariant holds, and every code's uses in all its spellings are within its cap.

    The Go service spends and undoes without a look at the balance: there a negative one is its own doing.
    """
    allowed = {"spelling", "balance"} if {"go_spend", "go_undo"} & {*names} else {"spelling"}
    found = [v for v in await verify(database.admin_url, statement_limit=60) if v.invariant not in allowed]
    assert found == []
    over = "SELECT upper(code), sum(times_redeemed) FROM promo_codes GROUP BY 1 HAVING sum(times_redeemed) > 1"
    assert await rows(database, over) == []


@ON_POSTGRESQL_16
@pytest.mark.parametrize("name", TWO_GRANTS_AND_AN_ISSUE)
async def test_cap_holds_in_every_order_of_two_grants_and_an_issue(database: Database, name: str) -> None:
    """Three preemptions suffice: both find no row to lock, it appears, and both decide before either commits."""
    given, operations = TWO_GRANTS_AND_AN_ISSUE[name]
    assert await try_all(database, given, operations, preemptions=3) > 10
    await check(database)


@pytest.mark.parametrize("name", PAIRS)
async def test_invariants_hold_in_every_order_of_two_operations(database18: Database, name: str) -> None:
    given, operations = PAIRS[name]
    assert await try_all(database18, given, operations, preemptions=1) > 1
    await check(database18, operations)


async def test_explorer_finds_a_lost_update(database18: Database) -> None:
    """The explorer itself: a counter that is read and then written in two statements is lost in one order of four."""
    await rows(database18, "CREATE TABLE public.number (n integer); GRANT ALL ON public.number TO PUBLIC")

    async def increment(session: SteppedConnection) -> None:
        (row,) = await (await session.execute("SELECT n FROM public.number")).fetchall()
        await session.execute("UPDATE public.number SET n = %s", (row[0] + 1,))

    seen = []
    async with open_sessions(database18) as sessions:

        async def once(schedule: Sequence[int]) -> Run:
            await rows(database18, "DELETE FROM public.number")
            await rows(database18, "INSERT INTO public.number VALUES (0)")
            return await sessions.scheduler.run(sessions.go_services[:2], [increment, increment], schedule)

        async for _ in explore(once):
            seen.append((await rows(database18, "SELECT n FROM public.number"))[0][0])
    assert (len(seen), seen.count(2)) == (6, 2)

"""A mixed load on one ledger for a given time: meanwhile and afterwards `verify` finds no violation.

Two operators, the Go service's own statements, webhooks in any order, compensation, revoke and second spellings. What
`verify` may say is what the Go service does by contract: it looks at no balance before it undoes or spends, and two
spellings are its own admin page's. See also: `actors`; `test_all_interleavings` for races that are explored instead of
awaited.
"""

import random
from contextlib import AsyncExitStack

import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.helpers import open_ledger, rows
from tests.stress import actors
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.types import Violation

BY_CONTRACT = {"spelling", "balance"}
GO_SERVICES = 3


async def findings(database: Database) -> list[Violation]:
    return [v for v in await verify(database.admin_url, statement_limit=60) if v.invariant not in BY_CONTRACT]


async def test_mixed_load_leaves_a_sound_ledger(database: Database, request: pytest.FixtureRequest) -> None:
    seconds, seed = request.config.getoption("stress_seconds"), request.config.getoption("stress_seed")
    seed = random.SystemRandom().randrange(10**9) if seed is None else seed
    print(f"seed {seed}, {seconds:g} s")
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(open_ledger(database.runtime_url)) for _ in range(2)]
        gos = [await stack.enter_async_context(GoService.connect(database.owner_url)) for _ in range(GO_SERVICES)]
        context = actors.LoadContext(ledgers, random.Random(seed))
        for code in actors.CODES:
            await context.ledger.put(context.terms(code))
        load = [actors.redeem] * 24 + [actors.order] * 8 + [actors.edit, actors.edit]
        left = seconds
        while left > 0:
            part = min(left, 20.0)
            await actors.run(context, [*load, *map(actors.go_service, gos)], part)
            left -= part
            assert await findings(database) == [], seed
    print(*sorted(context.counts.items()), sep="\n")
    over = (
        "SELECT n, uses FROM (SELECT vouchers.normal_code(code) AS n, sum(times_redeemed) AS uses FROM promo_codes "
        "WHERE code ILIKE 'other-%%' GROUP BY 1) AS u WHERE uses > 2"
    )
    assert await rows(database, over) == []
    for user in actors.USERS:
        query = "SELECT floor(sum(amount_minor) / 1000.0), sum(amount_omr) FROM credit_ledger WHERE customer_id = %s"
        ids = await rows(database, "SELECT id FROM customers WHERE user_id = %s", user)
        if ids:
            exact, whole = (await rows(database, query, ids[0][0]))[0]
            assert exact == whole, user

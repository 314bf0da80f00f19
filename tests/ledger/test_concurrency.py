"""Concurrency: several operators and the Go service on the same rows; nothing is granted twice or beyond a cap."""

import asyncio
import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from testbed.postgres import Database
from tests.ledger.go_service import GoService, RedemptionRefused
from tests.ledger.helpers import holding, issue, open_ledger, redeem_outcome, redeem_request, rows, terms
from tests.ledger.purchase_helpers import purchase_request
from voucher_operator.ledger.api import Ledger
from voucher_operator.resources.reasons import Reason


async def go_redeems(database: Database, code: str, users: list[str]) -> int:
    """Redeem for each user as the Go service does; how many were granted."""
    granted = 0
    async with GoService.connect(database.owner_url) as go:
        for user in users:
            try:
                await go.redeem(await go.customer(user), code)
            except RedemptionRefused:
                continue
            granted += 1
    return granted


async def test_cap_is_exact_with_two_operators_and_the_go_service(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms(max_redemptions=100))
    async with open_ledger(database.runtime_url) as other:
        ledgers = itertools.cycle((ledger, other))
        users = [[f"go-{n}-{m}" for m in range(50)] for n in range(4)]
        ours, theirs = await asyncio.gather(
            asyncio.gather(*(next(ledgers).redeem(redeem_request()) for _ in range(800))),
            asyncio.gather(*(go_redeems(database, "CODE", some) for some in users)),
        )
    answers = Counter(redeem_outcome(answer) for answer in ours)
    assert set(answers) <= {"redeemed", "RedemptionLimitReached"}
    assert answers["redeemed"] + sum(theirs) == 100
    assert await rows(database, "SELECT times_redeemed, max_redemptions FROM promo_codes") == [(100, 100)]
    assert await rows(database, "SELECT count(*) FROM promo_redemptions") == [(100,)]


@pytest.mark.usefixtures("ledger")
async def test_cap_is_exact_under_other_database_defaults(database: Database) -> None:
    """A stricter isolation would read a snapshot from before the lock."""
    for setting in (
        "default_transaction_isolation = 'repeatable read'",
        "synchronous_commit = off",
        "lock_timeout = 1",
    ):
        await rows(database, f"ALTER DATABASE {database.name} SET {setting}")
    await issue(database, max_redemptions=50)
    async with open_ledger(database.runtime_url) as one, open_ledger(database.runtime_url) as two:
        ledgers = itertools.cycle((one, two))
        answers = await asyncio.gather(*(next(ledgers).redeem(redeem_request()) for _ in range(200)))
        assert Counter(redeem_outcome(answer) for answer in answers)["redeemed"] == 50
        assert await one._pool.run(settings) == ["read committed", "on", "1s"]


async def settings(conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> list[str]:
    names = (b"transaction_isolation", b"synchronous_commit", b"lock_timeout")
    return [row[0] for name in names for row in await (await conn.execute(b"SHOW " + name)).fetchall()]


async def test_each_customer_redeems_once_across_spellings_and_operators(ledger: Ledger, database: Database) -> None:
    await issue(database, "summer")
    async with open_ledger(database.runtime_url) as other:
        spellings = itertools.cycle(("SUMMER", "summer", " Summer "))
        ledgers = itertools.cycle((ledger, other))
        users = [f"user-{n}" for n in range(20)]
        ours, theirs = await asyncio.gather(
            asyncio.gather(*(next(ledgers).redeem(redeem_request(next(spellings), user)) for user in users * 10)),
            go_redeems(database, "summer", users),
        )
    answers = Counter(redeem_outcome(answer) for answer in ours)
    assert answers["redeemed"] + theirs == 20
    assert answers["AlreadyRedeemed"] == 200 - answers["redeemed"]
    assert [await ledger.balance(user) for user in users] == [10_000] * 20


async def test_same_key_at_two_operators_is_granted_once(ledger: Ledger, database: Database) -> None:
    await issue(database)
    async with open_ledger(database.runtime_url) as other:
        for n in range(20):
            asked = redeem_request(user=f"user-{n}")
            answers = await asyncio.gather(*(one_ledger.redeem(asked) for one_ledger in (ledger, other, ledger, other)))
            assert [redeem_outcome(answer) for answer in answers] == ["redeemed"] * 4
            assert sorted(answer.replayed for answer in answers) == [False, True, True, True]
            assert await ledger.balance(f"user-{n}") == 10_000


async def test_same_key_with_two_codes_is_granted_once(ledger: Ledger, database: Database) -> None:
    """No lock is common to the two: the key itself decides, and the loser reads the winner's answer."""
    codes = [f"CODE-{n}" for n in range(2)]
    for code in codes:
        await issue(database, code)
    async with open_ledger(database.runtime_url) as other:
        for n in range(20):
            one = redeem_request(codes[0], f"user-{n}")
            two = replace(one, code=codes[1], request_hash="two")
            answers = await asyncio.gather(ledger.redeem(one), other.redeem(two))
            assert sorted(redeem_outcome(answer) for answer in answers) == ["IdempotencyConflict", "redeemed"]
            assert await ledger.balance(f"user-{n}") == 10_000


async def test_concurrent_new_decisions_overwrite_a_refusal_once(ledger: Ledger, database: Database) -> None:
    """Both decide the request again before either writes: the second one sees the result of the first."""
    codes = ["CODE-0", "CODE-1"]
    for code in codes:
        await issue(database, code)
    await issue(database, "FIRST")
    await ledger.redeem(redeem_request("FIRST", "ahmed"))
    refused = redeem_request("NONE", "ahmed")
    await ledger.redeem(refused)
    one = replace(refused, uid="one", request_hash="one", code=codes[0])
    two = replace(refused, uid="two", request_hash="two", code=codes[1])
    async with open_ledger(database.runtime_url) as other:
        async with holding(database, "SELECT FROM vouchers.redemption FOR UPDATE") as holder:
            both = asyncio.gather(ledger.redeem(one), other.redeem(two))
            await until_waiting(database, 2)
            await holder.rollback()
        assert sorted(redeem_outcome(answer) for answer in await both) == ["IdempotencyConflict", "redeemed"]
    assert await ledger.balance("ahmed") == 20_000


async def until_waiting(database: Database, backends: int) -> None:
    """Wait until as many of the operators' backends wait for a lock."""
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'voucher-operator' AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while len(await rows(database, query)) < backends:
            pass


async def test_concurrent_first_redemptions_create_each_customer_once(ledger: Ledger, database: Database) -> None:
    codes = [f"CODE-{n}" for n in range(6)]
    for code in codes:
        await issue(database, code)
    users = [f"user-{n}" for n in range(30)]
    async with open_ledger(database.runtime_url) as other:
        answers, theirs = await asyncio.gather(
            asyncio.gather(
                *(ledger.redeem(redeem_request(code, user)) for user in users for code in codes[:2]),
                *(other.redeem(redeem_request(code, user)) for user in reversed(users) for code in codes[2:4]),
            ),
            asyncio.gather(*(go_redeems(database, code, users) for code in codes[4:])),
        )
    assert {redeem_outcome(answer) for answer in answers} == {"redeemed"}
    assert theirs == [30, 30]
    assert await rows(database, "SELECT count(*) FROM customers") == [(30,)]
    assert [await ledger.balance(user) for user in users] == [60_000] * 30


async def test_mixed_load_causes_no_deadlock(ledger: Ledger, database: Database) -> None:
    """Redeem, order and compensate, put and the Go service's statements on a few codes and a few customers."""
    codes = [f"CODE-{n}" for n in range(4)]
    users = [f"user-{n}" for n in range(8)]
    vouchers = [terms(code, uid=code, name=code.lower()) for code in codes]
    for voucher in vouchers:
        await ledger.put(voucher)

    async def redeem_or_compensate(one_ledger: Ledger, n: int) -> None:
        for m in range(25):
            asked = redeem_request(codes[(n + m) % 4], users[(n * 3 + m) % 8])
            if m % 2 == 0:
                await one_ledger.redeem(asked)
            elif (
                placed := (
                    await one_ledger.purchase(purchase_request(50_000_000, redeem=asked, any_tenant=True))
                ).purchase
            ) is not None:
                await one_ledger.compensate(placed.key, Reason.ABANDONED)

    async def edit(one_ledger: Ledger) -> None:
        for n in range(20):
            await one_ledger.put(replace(vouchers[n % 4], generation=n + 2, max_redemptions=1000 + n))

    async with open_ledger(database.runtime_url) as other:
        ledgers = itertools.cycle((ledger, other))
        await asyncio.gather(
            *(redeem_or_compensate(next(ledgers), n) for n in range(12)),
            edit(ledger),
            edit(other),
            *(go_redeems(database, code, users * 3) for code in codes),
        )
    assert await rows(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


async def test_revoke_during_redemptions_refuses_later_requests(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    (owner,) = await ledger.owners()
    async with open_ledger(database.runtime_url) as other:
        before = [asyncio.ensure_future(ledger.redeem(redeem_request())) for _ in range(200)]
        assert await other.revoke(owner)
        after = await asyncio.gather(*(ledger.redeem(redeem_request()) for _ in range(50)))
        answers = Counter(redeem_outcome(answer) for answer in await asyncio.gather(*before))
    assert set(answers) <= {"redeemed", "VoucherNotFound"}
    assert {redeem_outcome(answer) for answer in after} == {"VoucherNotFound"}

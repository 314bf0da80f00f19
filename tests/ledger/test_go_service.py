"""The Go service on a migrated ledger: its statements unchanged, our columns in step with what it writes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.go_service import GoService, PromoCode, RedemptionRefused
from voucher_operator.ledger.admin.verify import verify


@pytest.fixture
async def go(database: Database) -> AsyncIterator[GoService]:
    async with GoService.connect(database.owner_url) as service:
        yield service


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as connection:
        yield connection


async def one(connection: AsyncConnection[Any], query: str, *parameters: object) -> Any:
    """The one row of a query; its value when it has one column."""
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


async def promo(connection: AsyncConnection[Any], code: str) -> Any:
    return await one(
        connection,
        "SELECT credit_omr, credit_minor, times_redeemed, granted_minor FROM promo_codes WHERE code = %s",
        code,
    )


async def life_of_a_code(go: GoService) -> list[object]:
    """All that the service does, and all that it is answered."""
    seen: list[object] = []
    await go.issue("spring", 10, description="d", max_redemptions=2)
    first, second, third = [await go.customer(user) for user in ("1", "2", "3")]
    assert await go.customer("1") == first
    seen += [await go.redeem(first, "spring"), await go.redeem(second, "spring")]
    for customer, code in ((first, "spring"), (third, "spring"), (third, "SPRING"), (third, "")):
        seen.append(await refusal(go, customer, code))
    await go.spend(first, 4)
    seen += [await go.balance(first), await go.undo(second, "spring"), await go.undo(second, "spring")]
    seen += [await go.balance(second), await go.redeem(third, "spring"), await go.codes()]
    await go.issue("spring", 20, active=False, max_redemptions=-1)
    seen += [await refusal(go, second, "spring"), await go.preview("spring")]
    await go.revoke("spring")
    seen += [await refusal(go, second, "spring"), await go.preview("spring"), await go.codes()]
    await go.issue("spring", 20, max_redemptions=-1)
    seen += [await go.redeem(second, "spring"), await go.preview("spring"), await go.balance(second)]
    return seen


async def refusal(go: GoService, customer: UUID, code: str) -> str:
    with pytest.raises(RedemptionRefused) as caught:
        await go.redeem(customer, code)
    return str(caught.value)


async def test_go_service_gets_the_same_results_after_the_migration(
    empty_database: Database, database: Database
) -> None:
    async with GoService.connect(empty_database.owner_url) as before, GoService.connect(database.owner_url) as after:
        await before.start()
        await after.start()
        assert await life_of_a_code(before) == await life_of_a_code(after)
    assert await verify(database.runtime_url) == []


async def test_go_service_starts_while_operator_sessions_are_idle(database: Database, go: GoService) -> None:
    async with await AsyncConnection.connect(database.runtime_url, autocommit=True) as ours:
        await ours.execute("SELECT sum(amount_minor) FROM credit_ledger")
        async with ours.transaction():
            await ours.execute("SELECT count(*) FROM promo_codes")
        await go.start()


async def test_go_service_starts_while_operator_sessions_redeem(database: Database, go: GoService) -> None:
    """Our transactions are short: its ALTERs get their locks."""
    stop = asyncio.Event()

    async def ours() -> None:
        async with await AsyncConnection.connect(database.runtime_url, autocommit=True) as connection:
            while not stop.is_set():
                async with connection.transaction():
                    await connection.execute("SELECT code FROM promo_codes ORDER BY code FOR NO KEY UPDATE")
                    await connection.execute("SELECT sum(amount_minor) FROM credit_ledger")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(ours())
        for _ in range(3):
            await go.start()
        stop.set()


async def test_whole_units_round_towards_less_credit(owner: AsyncConnection[Any]) -> None:
    for minor, whole in ((25_500, 25), (25_000, 25), (999, 0), (0, 0), (-1, -1), (-12_345, -13), (-12_000, -12)):
        assert await one(owner, "SELECT vouchers.floor_to_major(%s)", minor) == whole


async def test_credit_columns_follow_the_last_writer(go: GoService, owner: AsyncConnection[Any]) -> None:
    await go.issue("A", 10)
    assert (await promo(owner, "A"))[:2] == (10, 10_000)
    await owner.execute("UPDATE promo_codes SET credit_minor = 25500")
    assert (await promo(owner, "A"))[:2] == (25, 25_500)
    # The admin page saves what it shows: nothing is meant to change.
    await go.issue("A", 25, description="new words")
    assert (await promo(owner, "A"))[:2] == (25, 25_500)
    await go.issue("A", 26)
    assert (await promo(owner, "A"))[:2] == (26, 26_000)
    await owner.execute("UPDATE promo_codes SET credit_omr = 3, credit_minor = 4750")
    assert (await promo(owner, "A"))[:2] == (4, 4_750)
    await owner.execute("UPDATE promo_codes SET credit_minor = NULL")
    assert (await promo(owner, "A"))[:2] == (4, 4_000)


async def test_row_from_before_the_migration_is_kept_in_sync(owner: AsyncConnection[Any], database: Database) -> None:
    async with await AsyncConnection.connect(database.admin_url, autocommit=True) as admin:
        await admin.execute("SET session_replication_role = replica")
        await admin.execute("INSERT INTO promo_codes (code, credit_omr) VALUES ('old', 5)")
    assert (await promo(owner, "old"))[:2] == (5, None)
    await owner.execute("UPDATE promo_codes SET description = 'x'")
    assert (await promo(owner, "old"))[:2] == (5, None)
    await owner.execute("UPDATE promo_codes SET credit_omr = 6")
    assert (await promo(owner, "old"))[:2] == (6, 6_000)
    assert await verify(database.runtime_url) == []


async def test_counters_follow_grants_and_undos_of_the_go_service(
    database: Database, go: GoService, owner: AsyncConnection[Any]
) -> None:
    await go.issue("A", 10)
    first, second = await go.customer("1"), await go.customer("2")
    await go.redeem(first, "A")
    await go.redeem(second, "A")
    assert await promo(owner, "A") == (10, 10_000, 2, 20_000)
    assert await one(owner, "SELECT last_redeemed_at = (SELECT max(created_at) FROM credit_ledger) FROM promo_codes")
    await go.spend(first, 3)
    await go.undo(second, "A")
    assert await promo(owner, "A") == (10, 10_000, 1, 10_000)
    minor = "SELECT array_agg(amount_minor ORDER BY amount_minor) FROM credit_ledger WHERE customer_id = %s"
    assert await one(owner, minor, first) == [-3_000, 10_000]
    assert await verify(database.runtime_url) == []


async def test_go_service_undo_reverses_a_grant_of_the_operator(
    database: Database, go: GoService, owner: AsyncConnection[Any]
) -> None:
    """Our entries give both columns; its undo finds them by their reason, and the counters follow."""
    await owner.execute("INSERT INTO promo_codes (code, credit_omr, credit_minor) VALUES ('A', 25, 25500)")
    customer = await go.customer("1")
    async with owner.transaction():
        await owner.execute(
            "UPDATE promo_codes SET times_redeemed = 1, granted_minor = 25500, last_redeemed_at = now()"
        )
        await owner.execute("INSERT INTO promo_redemptions (customer_id, code) VALUES (%s, 'A')", (customer,))
        await owner.execute(
            "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) "
            "VALUES (%s, 25, 25500, 'promo:A')",
            (customer,),
        )
    assert await promo(owner, "A") == (25, 25_500, 1, 25_500)
    assert await go.balance(customer) == 25
    assert await verify(database.runtime_url) == []
    await go.undo(customer, "A")
    assert await promo(owner, "A") == (25, 25_500, 0, 0)
    assert await verify(database.runtime_url) == []


@pytest.mark.parametrize("code", ["", "lower", "  padded ", "ÜMLAUT", "a'b\"c", "%s"])
async def test_go_service_redeems_codes_in_any_spelling(
    database: Database, go: GoService, owner: AsyncConnection[Any], code: str
) -> None:
    await go.issue(code, 5, max_redemptions=-1)
    customer = await go.customer("1")
    assert await go.redeem(customer, code) == 5
    assert await go.preview(code) == PromoCode(code, 5, "", True, -1, 1)
    assert (await promo(owner, code))[2:] == (1, 5_000)
    assert await verify(database.runtime_url) == []


async def test_go_service_role_needs_no_rights_on_schema_vouchers(database: Database) -> None:
    """Where another role than the tables' owner does the daily work, the triggers work all the same."""
    role = f"{database.name}_go"
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}".encode())
        try:
            async with await AsyncConnection.connect(database.admin_url, autocommit=True) as connection:
                await connection.execute(f"SET ROLE {role}".encode())
                assert (await life_of_a_code(GoService(connection)))[0] == 10
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert await verify(database.runtime_url) == []

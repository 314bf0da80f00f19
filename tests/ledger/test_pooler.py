"""The ledger behind PgBouncer 1.18, in session and in transaction mode: everything works, and nothing leaks.

In transaction mode it has so few sessions of PostgreSQL that each is shared by several connections of ours.
"""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Final, get_args

import psycopg
import pytest

from testbed.pgbouncer import Mode, PgBouncer
from testbed.postgres import RUNTIME, Database, PostgresServer
from tests.ledger.helpers import holding, issue, open_ledger, redeem_outcome, redeem_request, rows, terms
from tests.ledger.purchase_helpers import place_purchase, purchase_outcome, purchase_request
from tests.ledger.test_session_defaults import DESCRIPTION, HOSTILE, buy_and_take_back, set_defaults
from voucher_operator.ledger.admin.commands import account, release
from voucher_operator.ledger.admin.export import What, export
from voucher_operator.ledger.admin.stale_sessions import end_stale_sessions
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import LedgerBusyError
from voucher_operator.ledger.schema.migrate import ADVISORY_LOCK, migrate
from voucher_operator.ledger.schema.session import MigrationError
from voucher_operator.ledger.session import Pooler
from voucher_operator.ledger.types import VoucherOwner
from voucher_operator.resources.errors import LedgerUnavailableError

SESSIONS: Final[dict[Mode, int]] = {"session": 30, "transaction": 3, "statement": 3}
CASES: Final[list[tuple[Mode, Pooler]]] = [
    ("session", "auto"),
    ("session", "session"),
    ("transaction", "auto"),
    ("transaction", "transaction"),
]


@pytest.fixture(scope="module")
def poolers(postgres18: PostgresServer) -> Iterator[dict[Mode, PgBouncer]]:
    with (
        PgBouncer(postgres18, "session", pool_size=SESSIONS["session"]) as session,
        PgBouncer(postgres18, "transaction", pool_size=SESSIONS["transaction"]) as transaction,
        PgBouncer(postgres18, "statement", pool_size=SESSIONS["statement"]) as statement,
    ):
        yield {"session": session, "transaction": transaction, "statement": statement}


@pytest.fixture
def pooled(poolers: dict[Mode, PgBouncer], database18: Database) -> Database:
    """A ledger behind PgBouncer in transaction mode."""
    return poolers["transaction"].database(database18)


@pytest.fixture
async def shared(pooled: Database, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Ledger]:
    """The same, opened as by default; it is sound in the end, and nothing was logged above INFO."""
    async with open_ledger(pooled.runtime_url) as opened:
        yield opened
    assert await verify(pooled.admin_url) == []
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


@pytest.mark.parametrize(("mode", "setting"), CASES)
async def test_every_use_case_works_behind_a_pooler_that_is_busy(
    poolers: dict[Mode, PgBouncer], database18: Database, mode: Mode, setting: Pooler
) -> None:
    url = poolers[mode].database(database18).runtime_url
    async with open_ledger(url, pooler=setting) as one, open_ledger(url, pooler=setting) as other:
        await one.put(terms(max_redemptions=100))
        results = await asyncio.gather(
            *(ledger.redeem(redeem_request()) for _ in range(120) for ledger in (one, other)),
            *(ledger.check() for _ in range(20) for ledger in (one, other)),
        )
        outcomes = [redeem_outcome(result) for result in results[:240]]  # type: ignore[arg-type]
        assert outcomes.count("redeemed") == 100
        (counters,) = await other.counters()
        assert counters.times_redeemed == 100
        await one.put(terms("SECOND", uid="voucher-2", name="second", generation=1))
        await asyncio.gather(*(buy_and_take_back_as(ledger, n) for n, ledger in enumerate((one, other, one, other))))
        assert await other.revoke(VoucherOwner("voucher-2", "billing", "second"))
        assert [owner.uid for owner in await one.owners()] == ["voucher-1"]
        assert len(await one.outbox_pending(500)) > 100
        await one.purge()
    assert await verify(database18.admin_url) == []


async def buy_and_take_back_as(ledger: Ledger, n: int) -> None:
    placed = await place_purchase(ledger, purchase_request(10_000, "SECOND", f"buyer-{n}"))
    assert placed.redeemed
    assert (await ledger.balance(f"buyer-{n}"), len(await ledger.entries(f"buyer-{n}"))) == (15_500, 2)


@pytest.mark.parametrize(("mode", "setting"), CASES)
async def test_defaults_of_the_role_do_not_reach_a_session_behind_a_pooler(
    poolers: dict[Mode, PgBouncer], database18: Database, mode: Mode, setting: Pooler
) -> None:
    set_defaults(database18, RUNTIME, {**HOSTILE, "search_path": "nowhere"})
    url = poolers[mode].database(database18).runtime_url
    async with open_ledger(url, pooler=setting) as ledger:
        await ledger.put(terms(description=DESCRIPTION))
        assert (await ledger.check()).clock_offset.total_seconds() < 60
        result = await ledger.redeem(redeem_request(user="عمر"))
        assert abs((await ledger.entries("عمر"))[0].created_at - result.decided_at).total_seconds() < 60
        await buy_and_take_back(ledger)
        levels = await asyncio.gather(*(ledger._pool.run(isolation_and_timeout) for _ in range(4)))
    assert set(levels) == {("read committed", "8s", "1s")}
    assert await verify(url) == []
    assert await verify(database18.admin_url) == []


async def isolation_and_timeout(conn: Connection) -> tuple[str, ...]:
    names = ("transaction_isolation", "statement_timeout", "lock_timeout")
    rows = [await (await conn.execute(f"SHOW {name}".encode())).fetchone() for name in names]
    return tuple(str(row[0]) for row in rows if row is not None)


async def test_nothing_is_left_in_the_sessions_of_the_pooler(shared: Ledger, pooled: Database) -> None:
    await shared.put(terms())
    await asyncio.gather(*(shared.redeem(redeem_request()) for _ in range(20)), verify(pooled.runtime_url))
    await export(pooled.runtime_url, "entries", "jsonl", io.StringIO())
    query = """SELECT pg_backend_pid(), current_setting('search_path'), current_setting('lock_timeout'),
        current_setting('default_transaction_read_only'), (SELECT count(*) FROM pg_prepared_statements)"""
    connections = [await psycopg.AsyncConnection.connect(pooled.runtime_url) for _ in range(SESSIONS["transaction"])]
    # Each keeps its transaction open, so that each gets another session.
    found = [await (await conn.execute(query)).fetchone() for conn in connections]
    for conn in connections:
        await conn.close()
    assert len({row[0] for row in found if row}) == len(connections)
    assert {row[1:] for row in found if row} == {('"$user", public', "0", "off", 0)}


async def test_commands_work_behind_a_pooler_and_leave_no_session_read_only(shared: Ledger, pooled: Database) -> None:
    await shared.put(terms(description=DESCRIPTION))
    await shared.redeem(redeem_request(user="ahmed"))
    for _ in range(SESSIONS["transaction"] + 1):
        assert await verify(pooled.runtime_url) == []
        for what in get_args(What):
            here, direct = io.StringIO(), io.StringIO()
            await export(pooled.runtime_url, what, "jsonl", here)
            await export(pooled.admin_url, what, "jsonl", direct)
            assert here.getvalue() == direct.getvalue()
        assert (await account(pooled.runtime_url, "ahmed"))[1] == 25_500
        assert await release(pooled.runtime_url, "billing", "nobody", "sales") == 0
        assert redeem_outcome(await shared.redeem(redeem_request())) == "redeemed"


async def test_impossible_order_in_a_batch_consumes_nothing_behind_a_pooler(shared: Ledger, pooled: Database) -> None:
    await shared.put(terms(max_redemptions=2))
    orders = [(50_000, "poor"), (9_000, "rich"), (50_000, "poorer"), (9_000, "richer")]
    requests = [purchase_request(total, "CODE", user, payable=False) for total, user in orders]
    outcomes = [purchase_outcome(one) for one in await asyncio.gather(*(shared.purchase(one) for one in requests))]
    refused = "PaymentProcessorNotConfigured"
    assert outcomes == [refused, "completed", refused, "completed"]
    assert await rows(pooled, "SELECT times_redeemed FROM promo_codes") == [(2,)]


async def test_account_that_is_missing_is_opened_behind_a_pooler(shared: Ledger, pooled: Database) -> None:
    await shared.put(terms())
    await issue(pooled, "SECOND")
    await shared.redeem(redeem_request(user="ahmed"))
    await rows(pooled, "DELETE FROM vouchers.account")
    assert redeem_outcome(await shared.redeem(redeem_request("SECOND", "ahmed"))) == "redeemed"
    assert await shared.balance("ahmed") == 35_500


async def test_locked_row_fails_after_lock_timeout_behind_a_pooler(shared: Ledger, pooled: Database) -> None:
    await shared.put(terms())
    async with holding(pooled, "SELECT 1 FROM promo_codes FOR UPDATE"):
        with pytest.raises(LedgerBusyError):
            await shared.revoke(VoucherOwner("voucher-1", "billing", "first"))
    assert await shared.revoke(VoucherOwner("voucher-1", "billing", "first"))


async def test_work_that_fails_here_is_rolled_back_behind_a_pooler(shared: Ledger, pooled: Database) -> None:
    await issue(pooled)

    async def fail(conn: Connection) -> None:
        await conn.execute("UPDATE promo_codes SET description = 'changed'")
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        await shared._pool.run(fail)
    assert await rows(pooled, "SELECT description FROM promo_codes") == [("",)]


async def test_statement_whose_failure_is_ignored_is_no_success_behind_a_pooler(shared: Ledger) -> None:
    async def ignore(conn: Connection) -> None:
        try:
            await conn.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            return

    with pytest.raises(LedgerUnavailableError, match="SQLSTATE 25P02"):
        await shared._pool.run(ignore)


async def test_stale_transaction_is_ended_through_a_pooler(shared: Ledger, pooled: Database) -> None:
    async with await psycopg.AsyncConnection.connect(pooled.runtime_url, application_name="voucher-operator") as frozen:
        await frozen.execute("SELECT 1")
        assert await shared._pool.run(lambda conn: end_stale_sessions(conn, seconds=0)) == 1
        with pytest.raises(psycopg.OperationalError):
            await frozen.execute("SELECT 1")
        await frozen.close()


async def test_pooler_is_reported_once_with_the_setting(pooled: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_ledger(pooled.runtime_url) as ledger:
        await asyncio.gather(*(ledger.check() for _ in range(10)))
    (message,) = {r.getMessage() for r in caplog.records if "pooler" in r.getMessage()}
    assert "set VOUCHER_OPERATOR_POOLER (chart: database.pooler) to session" in message
    assert len([r for r in caplog.records if "pooler" in r.getMessage()]) == 1


async def test_wrong_setting_is_named_in_the_error(pooled: Database) -> None:
    url = pooled.runtime_url
    async with open_ledger(url, pooler="session") as one, open_ledger(url, pooler="session") as other:
        answers = await asyncio.gather(
            *(ledger.counters() for _ in range(20) for ledger in (one, other)), return_exceptions=True
        )
    messages = {str(answer) for answer in answers if isinstance(answer, BaseException)}
    (message,) = messages
    assert "set VOUCHER_OPERATOR_POOLER (chart: database.pooler) to transaction" in message


async def test_startup_parameter_that_a_pooler_refuses_is_named(pooled: Database) -> None:
    async with open_ledger(f"{pooled.runtime_url}?options=-c%20jit%3Doff") as ledger:
        with pytest.raises(LedgerUnavailableError, match="remove options from the database settings"):
            await ledger.check()


async def test_statement_mode_is_refused_in_one_line(poolers: dict[Mode, PgBouncer], database18: Database) -> None:
    async with open_ledger(poolers["statement"].database(database18).runtime_url) as ledger:
        with pytest.raises(LedgerUnavailableError, match="that its mode is transaction or session"):
            await ledger.check()


async def test_migration_runs_behind_a_pooler_in_session_mode(
    poolers: dict[Mode, PgBouncer], empty_database18: Database
) -> None:
    url = poolers["session"].database(empty_database18).owner_url
    assert await migrate(url, currency="OMR", runtime_role=RUNTIME)
    assert await migrate(url, currency="OMR", runtime_role=RUNTIME) == []
    assert await verify(empty_database18.admin_url) == []


async def test_migration_behind_a_pooler_in_transaction_mode_is_refused_and_locks_nothing(
    poolers: dict[Mode, PgBouncer], empty_database18: Database
) -> None:
    url = poolers["transaction"].database(empty_database18).owner_url
    with pytest.raises(MigrationError, match=r"give it the address of PostgreSQL itself \(chart: migration.host"):
        await migrate(url, currency="OMR", runtime_role=RUNTIME)
    locks = await rows(empty_database18, "SELECT objid FROM pg_locks WHERE locktype = 'advisory'")
    assert (ADVISORY_LOCK & 0xFFFFFFFF,) not in locks
    assert await rows(empty_database18, "SELECT to_regclass('promo_codes')") == [(None,)]
    assert await migrate(empty_database18.owner_url, currency="OMR", runtime_role=RUNTIME)


@pytest.fixture
def empty_database18(postgres18: PostgresServer) -> Iterator[Database]:
    made = postgres18.database("pooled-empty")
    yield made
    postgres18.drop(made)

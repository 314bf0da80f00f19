"""A replica that freezes, or whose node is lost, in the midst of a pipeline holds its rows for ever; others end it."""

import logging
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from testbed.postgres import Database
from tests.ledger.drive import ask, issue, opened, says, until
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.stuck import STUCK_SECONDS, end_stuck
from voucher_operator.resources.errors import LedgerUnavailableError

CODE = "OMANTEL-MUSCAT-200"


async def session(database: Database, name: str = "voucher-operator") -> psycopg.AsyncConnection[tuple[object, ...]]:
    """Open one as a replica does, with its limits; but it may be idle in a transaction for a moment only."""
    conninfo = make_conninfo(database.runtime_url, application_name=name)
    conn = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    await conn.execute(statement("session").encode())
    await conn.execute("SET idle_in_transaction_session_timeout = '1ms'")
    return conn


@pytest.fixture
async def frozen(database: Database) -> AsyncIterator[int]:
    """The process id of a session that has locked the code, and was not told that its pipeline ends."""
    await issue(database, CODE)
    conn = await session(database)
    pid = conn.info.backend_pid
    try:
        conn.pgconn.enter_pipeline_mode()
        conn.pgconn.send_query_params(
            b"SELECT 1 FROM public.promo_codes WHERE code = $1 FOR NO KEY UPDATE", [CODE.encode()]
        )
        conn.pgconn.send_flush_request()
        conn.pgconn.flush()
        await until(lambda: lives(database, pid, "AND xact_start IS NOT NULL AND wait_event = 'ClientRead'"))
        yield pid
    finally:
        conn.pgconn.finish()


def lives(database: Database, pid: int, more: str = "") -> bool:
    query = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} {more}"
    with psycopg.connect(database.admin_url) as admin:
        return admin.execute(query.encode()).fetchone() is not None


async def test_others_end_it_and_go_on(database: Database, frozen: int, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(database.runtime_url) as ledger:
        with pytest.raises(LedgerUnavailableError, match="Another session holds a row"):
            await ledger.redeem(ask(CODE))
        assert lives(database, frozen)
        with caplog.at_level(logging.WARNING):
            other = await session(database)
            async with other:
                assert await end_stuck(other, seconds=0) == 1
                assert await end_stuck(other, seconds=0) == 0
        (told,) = (record.getMessage() for record in caplog.records if record.name.endswith(".stuck"))
        assert told == "ended sessions that a frozen or lost replica had left in a transaction: 1"
        await until(lambda: not lives(database, frozen))
        assert says(await ledger.redeem(ask(CODE))) == "redeemed"


async def test_young_ones_are_left_alone(database: Database, frozen: int) -> None:
    async with opened(database.runtime_url) as ledger:
        await ledger.end_stuck()
    assert STUCK_SECONDS > 15
    assert lives(database, frozen)


@pytest.mark.parametrize("name", ["voucher-operator verify", "billing"])
async def test_sessions_of_others_are_left_alone(database: Database, name: str) -> None:
    other, own = await session(database, name), await session(database)
    async with other, own:
        await other.execute("SET idle_in_transaction_session_timeout = 0")
        async with other.transaction():
            await other.execute("SELECT 1")
            assert await end_stuck(own, seconds=0) == 0

"""A result that a failover could lose is not reported, where PostgreSQL replicates synchronously.

The standby of these tests does not exist, so that every commit waits until something cuts the wait short.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from testbed.postgres import Database, PostgresServer
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, redeem_request, rows
from voucher_operator.ledger import pool
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import NotReplicatedError, is_outage
from voucher_operator.ledger.session import Pooler
from voucher_operator.ledger.types import RedeemRequest

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
WAITING = "SELECT pid, query_start FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
"""A statement of a session: the session itself may wait again at once."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that can replicate."""
    with PostgresServer(18, settings={"wal_level": "replica", "max_wal_senders": "1"}) as made:
        yield made


@asynccontextmanager
async def absent_standby(server: PostgresServer) -> AsyncIterator[None]:
    """All commits wait for a standby, until the end."""
    await _standbys(server, "absent")
    try:
        yield
    finally:
        await _standbys(server, "")


async def _standbys(server: PostgresServer, names: str) -> None:
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as admin:
        await admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        await admin.execute("SELECT pg_reload_conf()")
        while names and not await _commits_wait(server, admin):
            pass


async def _commits_wait(server: PostgresServer, admin: Connection) -> bool:
    """Whether a commit waits for a standby; the checkpointer decides it for all sessions."""
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as other:
        commit = asyncio.create_task(other.execute("SELECT pg_logical_emit_message(true, 'test', ''::text)"))
        while not commit.done():
            if found := await rows_of(admin, WAITING):
                await admin.execute("SELECT pg_cancel_backend(%s)", found[0][:1])
                await commit
                return True
    return False


async def rows_of(conn: Connection, query: str) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode())).fetchall()


async def cut_short(database: Database) -> None:
    """Cancel one wait for the standby: its transaction stays committed."""
    async with await psycopg.AsyncConnection.connect(database.admin_url, autocommit=True) as admin:
        while not (found := await rows_of(admin, WAITING)):
            pass
        await admin.execute("SELECT pg_cancel_backend(%s)", found[0][:1])
        while found[0] in await rows_of(admin, WAITING):
            pass


async def redeem_without_standby(ledger: Ledger, database: Database, request: RedeemRequest) -> str:
    """Redeem, and cut each wait for the standby short."""

    async def cut_all() -> None:
        while True:
            await cut_short(database)

    cutting = asyncio.create_task(cut_all())
    try:
        return redeem_outcome(await ledger.redeem(request))
    finally:
        cutting.cancel()
        await asyncio.wait((cutting,))


@pytest.mark.parametrize("pooler", ["session", "transaction"])
async def test_commit_whose_wait_was_cut_short_is_not_reported(
    own_server: PostgresServer, own_database: Database, pooler: Pooler
) -> None:
    """Also where each piece of work is one transaction, whose commit is the last statement."""
    await issue(own_database)
    request = redeem_request()
    async with open_ledger(own_database.runtime_url, pooler=pooler) as ledger:
        await ledger.info()
        async with absent_standby(own_server):
            with pytest.raises(NotReplicatedError, match="has not replicated a commit") as error:
                await redeem_without_standby(ledger, own_database, request)
            assert not is_outage(error.value)
            assert await rows(own_database, "SELECT times_redeemed FROM promo_codes") == [(1,)]
            # The row can be read now; it is no more replicated than before.
            with pytest.raises(NotReplicatedError):
                await redeem_without_standby(ledger, own_database, request)
        assert redeem_outcome(await ledger.redeem(request)) == "redeemed"


async def test_commit_is_reported_when_a_later_one_was_replicated(
    own_server: PostgresServer, own_database: Database
) -> None:
    """The second wait succeeds: what was written before it is on the standby as well."""
    await issue(own_database)
    async with open_ledger(own_database.runtime_url) as ledger:
        await ledger.info()
        async with absent_standby(own_server):
            redeeming = asyncio.create_task(ledger.redeem(redeem_request()))
            await cut_short(own_database)
        assert redeem_outcome(await redeeming) == "redeemed"


async def test_health_checks_and_timeouts_leave_no_session_waiting_for_an_absent_standby(
    own_server: PostgresServer, own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no time limit for that wait, and does not notice that a client has gone."""
    monkeypatch.setattr(pool, "ANSWER_SECONDS", 1.0)
    await issue(own_database)
    async with open_ledger(own_database.runtime_url) as ledger, absent_standby(own_server):
        writing = [ledger._pool.run(lambda conn: conn.execute("SELECT 1"), seconds=1.0) for _ in range(4)]
        answers = await asyncio.gather(*writing, return_exceptions=True)
        assert {type(answer) for answer in answers} == {NotReplicatedError}
        for _ in range(3):
            await ledger.check()
            await ledger.counters()
        assert await rows(own_database, WAITING) == []


async def test_new_process_reports_nothing_that_the_one_before_left_unreplicated(
    own_server: PostgresServer, own_database: Database
) -> None:
    await issue(own_database)
    request = redeem_request()
    async with open_ledger(own_database.runtime_url) as before:
        await before.info()
        async with absent_standby(own_server):
            with pytest.raises(NotReplicatedError):
                await redeem_without_standby(before, own_database, request)
            async with open_ledger(own_database.runtime_url) as after:
                with pytest.raises(NotReplicatedError):
                    await redeem_without_standby(after, own_database, request)

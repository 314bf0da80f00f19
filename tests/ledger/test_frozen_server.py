"""A server that is frozen, or that waits for its clients to leave, is left within seconds.

TCP does not notice the first, and the second goes on answering. See also: tests/e2e/test_failover.py.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from testbed.postgres import Database, PostgresServer
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, redeem_request, rows
from voucher_operator.ledger import connector, pool
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import is_unreachable
from voucher_operator.resources.errors import LedgerUnavailableError

SOON = 5.0
"""Seconds on a machine under load, beside the limit itself. psycopg alone waits ten more."""


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """Stop the server and all its sessions, as on a machine that hangs."""
    processes = [server.pid, *_children(server.pid)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def now() -> float:
    return asyncio.get_running_loop().time()


async def use_all_connections(ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.info() for _ in range(20)))


async def test_calls_to_a_frozen_server_end_at_the_limit_of_the_health_check(
    own_server: PostgresServer, own_database: Database
) -> None:
    """The check itself, and the calls that began before it: they do not wait for their own, longer limit."""
    await issue(own_database)
    request = redeem_request()
    async with open_ledger(own_database.runtime_url) as ledger:
        await use_all_connections(ledger)
        with frozen(own_server):
            began = now()
            waiting = [asyncio.create_task(ledger.redeem(request)), asyncio.create_task(ledger.owners())]
            await asyncio.sleep(0.1)
            with pytest.raises(LedgerUnavailableError, match="did not answer in time"):
                await ledger.check()
            assert now() - began < pool.CHECK_SECONDS + SOON
            for task in waiting:
                with pytest.raises(LedgerUnavailableError):
                    await task
            assert now() - began < pool.ANSWER_SECONDS
        assert redeem_outcome(await ledger.redeem(request)) == "redeemed"


async def test_cancelled_call_to_a_frozen_server_ends_at_once(
    own_server: PostgresServer, own_database: Database
) -> None:
    async with open_ledger(own_database.runtime_url) as ledger:
        await use_all_connections(ledger)
        with frozen(own_server):
            began = now()
            waiting = asyncio.create_task(ledger.owners())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert now() - began < SOON
        await ledger.info()


async def test_connections_leave_a_server_that_waits_for_its_clients(
    own_server: PostgresServer, own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A "smart" shutdown ends when the last client has gone; the calls that follow report it until it is back."""
    monkeypatch.setattr(connector, "PROBE_SECONDS", 0.1)
    await issue(own_database)
    async with open_ledger(own_database.runtime_url) as ledger:
        await use_all_connections(ledger)
        await asyncio.to_thread(own_server.stop, "smart")
        with pytest.raises(LedgerUnavailableError, match="cannot be reached"):
            await ledger.redeem(redeem_request())
        await asyncio.to_thread(own_server.start)
        assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


async def test_connections_leave_a_server_when_new_ones_reach_another(
    own_database: Database, database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover whose old primary still answers: what it would grant now would be lost."""
    monkeypatch.setattr(connector, "PROBE_SECONDS", 0.1)
    url = own_database.runtime_url
    async with open_ledger(lambda: url) as ledger:
        await use_all_connections(ledger)
        url = database18.runtime_url
        while await sessions(own_database):
            await ledger.info()


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"host": "absent.invalid", "hostaddr": ""}])
async def test_connections_stay_when_a_new_one_fails_for_another_reason(
    database18: Database, change: dict[str, str]
) -> None:
    """A password that the Secret does not have yet, a name server that does not answer."""
    url = database18.runtime_url
    async with open_ledger(lambda: url) as ledger:
        await use_all_connections(ledger)
        before = await sessions(database18)
        url = make_conninfo(url, **change)
        for _ in range(4):
            await ledger._pool._connector.probe()
        assert await sessions(database18) == before


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("connection failed: Connection refused\n\tIs the server running on that host?", True),
        ("connection failed: server closed the connection unexpectedly", True),
        ("connection timeout expired", False),
        ('connection failed: FATAL:  pg_hba.conf rejects connection for host "10.0.0.1"', False),
        ("connection failed: FATAL:  Passwort-Authentifizierung fehlgeschlagen", False),
        ("connection failed: SSL error: certificate verify failed", False),
        ("connection failed: could not open file: Too many open files", False),
        ("failed to resolve host 'pg-rw'", False),
    ],
)
def test_only_a_server_that_does_not_listen_is_absent(text: str, counts: bool) -> None:
    """Whatever else is wrong with new connections, the open ones are worth keeping."""
    assert is_unreachable(psycopg.OperationalError(text)) is counts


async def sessions(database: Database) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'voucher-operator' ORDER BY 1"
    return [row[0] for row in await rows(database, query, database.name)]

"""The commands that ask the ledger: all of them wait for a connection by one rule, and say alike why there is none."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from testbed.postgres import Database
from tests.ledger.helpers import redeem_request, rows, terms
from voucher_operator.ledger.admin.commands import account, release
from voucher_operator.ledger.admin.export import export
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.resources.errors import LedgerUnavailableError, RequestRejectedError

COMMANDS: Final[dict[str, Callable[[str], Awaitable[Any]]]] = {
    "balance": lambda url: account(url, "somebody"),
    "release": lambda url: release(url, "billing", "nobody", "sales"),
    "verify": verify,
    "export": lambda url: export(url, "entries", "jsonl", io.StringIO()),
    "migrate": lambda url: migrate(url, currency="OMR", runtime_role="voucher_operator"),
}
SLOW: Final = 3.0
"""Seconds until the server behind a slow network answers: more than the operator's pool waits, and its connections."""


@asynccontextmanager
async def slow_network(database: Database) -> AsyncIterator[Callable[[str], str]]:
    """Yield how a URL is changed so that each of its connections takes SLOW seconds to come about."""
    there = conninfo_to_dict(database.owner_url)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    connections: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await asyncio.sleep(SLOW)
        back, forth = await asyncio.open_connection(str(there["host"]), int(str(there["port"])))
        await asyncio.gather(forward(reader, forth), forward(back, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield lambda url: make_conninfo(url, host=host, port=port)
    finally:
        server.close()
        await asyncio.gather(*connections)


async def test_each_command_waits_for_a_slow_connection(database18: Database) -> None:
    async with slow_network(database18) as slowed:
        await asyncio.gather(*(run(slowed(database18.owner_url)) for run in COMMANDS.values()))


@pytest.mark.parametrize("name", COMMANDS)
async def test_each_command_says_at_once_that_nobody_listens(name: str) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(LedgerUnavailableError, match="PostgreSQL cannot be reached"):
            await COMMANDS[name]("postgresql://somebody@127.0.0.1:1/ledger")


async def test_each_command_says_that_a_database_is_not_migrated(empty_database: Database) -> None:
    for name in COMMANDS.keys() - {"migrate"}:
        with pytest.raises(LedgerUnavailableError, match="run `voucher-operator migrate`"):
            await COMMANDS[name](empty_database.owner_url)


async def test_balance_shows_the_newest_entries_and_changes_nothing(database18: Database, ledger18: Ledger) -> None:
    await ledger18.put(terms())
    await ledger18.redeem(redeem_request(user="ahmed"))
    info, balance, entries = await account(database18.runtime_url, "ahmed")
    assert (info.currency, balance, [one.amount_minor for one in entries]) == ("OMR", 25_500, [25_500])
    assert (await account(database18.runtime_url, "nobody"))[1:] == (0, [])


async def test_name_that_is_no_text_is_refused(database18: Database) -> None:
    """As an argument that is not UTF-8 reaches Python."""
    with pytest.raises(RequestRejectedError):
        await account(database18.runtime_url, "\udcff")


async def test_release_waits_for_a_locked_row_no_longer_than_its_limit(database18: Database, ledger18: Ledger) -> None:
    await ledger18.put(terms())
    await ledger18.revoke(await owner(ledger18))
    async with await psycopg.AsyncConnection.connect(database18.admin_url) as other:
        await other.execute("SELECT 1 FROM vouchers.terms FOR UPDATE")
        with pytest.raises(LedgerUnavailableError, match="Another session holds a row"):
            await release(database18.runtime_url, "billing", "first", "sales")
    assert await release(database18.runtime_url, "billing", "first", "sales") == 1
    assert await rows(database18, "SELECT released_to FROM vouchers.terms") == [("sales",)]


async def owner(ledger: Ledger) -> Any:
    (found,) = await ledger.owners()
    return found

"""PostgreSQL that takes no writes is not available; once it takes them again, no session of before stays read-only."""

import asyncio
import logging

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from testbed.postgres import Database, PostgresServer
from testbed.processes import wait_until
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, redeem_request
from voucher_operator.ledger.api import Ledger
from voucher_operator.resources.errors import LedgerUnavailableError

READ_ONLY = "default_transaction_read_only"


def make_read_only(server: PostgresServer, read_only: bool) -> None:
    """Change the default of the whole server: sessions that exist take it over, as those of a demoted primary do."""
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET {READ_ONLY} = {'on' if read_only else 'off'}".encode())
        admin.execute("SELECT pg_reload_conf()")

    def is_so() -> bool:
        with psycopg.connect(server.admin_url) as new:
            row = new.execute(f"SHOW {READ_ONLY}".encode()).fetchone()
        return row == ("on" if read_only else "off",)

    wait_until(is_so, "new default")


async def is_read_only(ledger: Ledger) -> bool:
    try:
        await ledger.check()
    except LedgerUnavailableError as error:
        return "read-only: point the database settings at the primary" in error.message
    return False


async def test_read_only_server_is_unavailable_until_it_takes_writes(
    own_server: PostgresServer, own_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads and writes mixed: the log has one line each way."""
    caplog.set_level(logging.INFO, "voucher_operator")
    await issue(own_database)
    async with open_ledger(own_database.runtime_url) as ledger:
        await asyncio.gather(*(ledger.counters() for _ in range(20)))
        await asyncio.to_thread(make_read_only, own_server, True)
        try:
            refused = await asyncio.gather(
                *(ledger.redeem(redeem_request()) for _ in range(3)),
                *(ledger.owners() for _ in range(3)),
                return_exceptions=True,
            )
            assert {type(answer) for answer in refused} <= {LedgerUnavailableError, list}
            for _ in range(3):
                assert await is_read_only(ledger)
                with pytest.raises(LedgerUnavailableError, match="read-only"):
                    await ledger.counters()
        finally:
            await asyncio.to_thread(make_read_only, own_server, False)
        assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"
        assert not await is_read_only(ledger)
        await asyncio.gather(*(ledger.redeem(redeem_request()) for _ in range(20)))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the ledger cannot be used: PostgreSQL is read-only: point the database settings at the primary.",
        "the ledger can be used again",
    ]


async def test_check_alone_sees_that_the_server_became_read_only(
    own_server: PostgresServer, own_database: Database
) -> None:
    """On a standby of the operator nothing is written."""
    async with open_ledger(own_database.runtime_url) as ledger:
        await ledger.check()
        await asyncio.to_thread(make_read_only, own_server, True)
        try:
            assert await is_read_only(ledger)
        finally:
            await asyncio.to_thread(make_read_only, own_server, False)
        assert not await is_read_only(ledger)


async def test_sessions_of_a_read_only_server_do_not_outlive_the_change_of_settings(database18: Database) -> None:
    """The settings name a standby, and then the primary; the standby lives on."""
    await issue(database18)
    standby = make_conninfo(database18.runtime_url, options=f"-c {READ_ONLY}=on")
    where = standby
    async with open_ledger(lambda: where) as ledger:
        for _ in range(3):
            with pytest.raises(LedgerUnavailableError, match="read-only"):
                await ledger.redeem(redeem_request())
        where = database18.runtime_url
        assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"
        assert not await is_read_only(ledger)

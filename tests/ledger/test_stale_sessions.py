"""A replica that freezes in the middle of a pipeline holds its row locks; another replica ends its session."""

import logging
import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from testbed.postgres import Database, PostgresServer
from tests.ledger.helpers import (
    frozen_session,
    issue,
    open_ledger,
    redeem_outcome,
    redeem_request,
    session,
    session_exists,
)
from voucher_operator.ledger.admin.stale_sessions import end_stale_sessions
from voucher_operator.resources.errors import LedgerUnavailableError

CODE = "OMANTEL-MUSCAT-200"


@pytest.fixture
async def frozen(database: Database) -> AsyncIterator[int]:
    """The process id of a session that has locked the code and whose pipeline does not end."""
    await issue(database, CODE)
    async with frozen_session(database, CODE) as pid:
        yield pid


async def test_frozen_session_is_ended_and_its_code_redeemed(
    database: Database, frozen: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_ledger(database.runtime_url) as ledger:
        with pytest.raises(LedgerUnavailableError, match="Another session holds a row"):
            await ledger.redeem(redeem_request(CODE))
        assert session_exists(database, frozen)
        with caplog.at_level(logging.WARNING):
            async with await session(database) as own:
                assert await end_stale_sessions(own, seconds=0) == 1
                assert not session_exists(database, frozen)
                assert await end_stale_sessions(own, seconds=0) == 0
        (message,) = (record.getMessage() for record in caplog.records if record.name.endswith(".stale_sessions"))
        assert message.startswith("ended sessions of the operator that had been in a transaction for over 0 s: 1; ")
        assert redeem_outcome(await ledger.redeem(redeem_request(CODE))) == "redeemed"


async def test_young_session_is_not_ended(database: Database, frozen: int) -> None:
    async with open_ledger(database.runtime_url) as ledger:
        await ledger.end_stale_sessions()
    assert session_exists(database, frozen)


@pytest.fixture
def others(database: Database, postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Sessions that look like the operator's but for one thing: whose -> how to connect."""
    elsewhere = postgres.database(f"t{secrets.token_hex(6)}")
    name = "voucher-operator"
    yield {
        "another role": make_conninfo(database.owner_url, application_name=name),
        "another database": make_conninfo(elsewhere.runtime_url, application_name=name),
        "a command's": make_conninfo(database.runtime_url, application_name="voucher-operator verify"),
        "the Go service's": make_conninfo(database.runtime_url, application_name="billing"),
    }
    postgres.drop(elsewhere)


@pytest.mark.parametrize("whose", ["another role", "another database", "a command's", "the Go service's"])
async def test_sessions_of_others_are_not_ended(database: Database, others: dict[str, str], whose: str) -> None:
    async with await psycopg.AsyncConnection.connect(others[whose]) as other, await session(database) as own:
        await other.execute("SELECT 1")
        assert await end_stale_sessions(own, seconds=0) == 0
        await other.execute("SELECT 1")


async def test_stale_session_task_does_not_change_the_ledger_health(
    empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """On an unmigrated database it works, and nothing else does: that is logged once."""
    with caplog.at_level(logging.INFO, "voucher_operator.ledger"):
        async with open_ledger(empty_database.runtime_url) as ledger:
            for _ in range(2):
                with pytest.raises(LedgerUnavailableError):
                    await ledger.info()
                await ledger.end_stale_sessions()
    assert len([record for record in caplog.records if "the ledger can" in record.getMessage()]) == 1

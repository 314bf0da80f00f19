"""Defaults of a role or a database do not reach the operator's sessions, nor those of commands and migrations."""

import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

import psycopg
import pytest
from psycopg import sql

from testbed.postgres import OWNER, RUNTIME, Database, PostgresServer
from tests.ledger.helpers import open_ledger, redeem_request, rows, terms
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from voucher_operator.ledger.admin.commands import account
from voucher_operator.ledger.admin.export import What, export
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PurchaseState
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import MigrationError
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.resources.reasons import Reason

HOSTILE: Final = {
    "DateStyle": "German, MDY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "500ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "500ms",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "row_security": "on",
    "synchronous_commit": "off",
    "client_min_messages": "error",
}
ENCODINGS: Final = ("LATIN1", "SQL_ASCII", "WIN1256")
DESCRIPTION: Final = "قسيمة, für alle"


def set_defaults(database: Database, role: str, defaults: Mapping[str, str]) -> None:
    """Set defaults of a role in this database alone."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for name, value in defaults.items():
            command = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}")
            names = (sql.Identifier(role), sql.Identifier(database.name), sql.SQL(name))
            admin.execute(command.format(*names, sql.Literal(value)))


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_operator_works_under_hostile_defaults_of_its_role(database: Database, encoding: str) -> None:
    set_defaults(database, RUNTIME, {**HOSTILE, "client_encoding": encoding, "search_path": "nowhere"})
    began, ends = datetime.now(UTC) - timedelta(hours=1), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    async with open_ledger(database.runtime_url) as ledger:
        put = await ledger.put(terms(description=DESCRIPTION, valid_from=began, valid_until=ends))
        assert (await ledger.check()).currency == "OMR"
        assert abs((await ledger.info()).now - datetime.now(UTC)) < timedelta(minutes=1)
        result = await ledger.redeem(redeem_request(user="عمر"))
        assert abs(result.decided_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert (await ledger.balance("عمر"), len(await ledger.entries("عمر"))) == (25_500, 1)
        (counters,) = await ledger.counters()
        assert (counters.uid, counters.times_redeemed) == (put.counters.uid, 1)
        await buy_and_take_back(ledger)
        assert len(await ledger.owners()) == 1
    assert await rows(database, "SELECT description FROM promo_codes") == [(DESCRIPTION,)]
    assert await verify(database.admin_url) == []


async def buy_and_take_back(ledger: Ledger) -> None:
    placed = await place_purchase(ledger, purchase_request(50_000, "CODE", "buyer"))
    assert abs(placed.deadline_at - placed.placed_at - timedelta(seconds=900)) < timedelta(seconds=1)
    taken = await ledger.compensate(placed.key, Reason.PAYMENT_REJECTED)
    assert taken is not None
    assert taken.state is PurchaseState.ROLLED_BACK
    assert len(await ledger.outbox_pending(100)) > 0
    assert (await ledger.outbox_backlog()).oldest_seconds < 60


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_commands_work_under_hostile_defaults_of_their_role(database: Database, encoding: str) -> None:
    async with open_ledger(database.runtime_url) as ledger:
        await ledger.put(terms(description=DESCRIPTION))
        await ledger.redeem(redeem_request(user="عمر"))
    set_defaults(database, RUNTIME, {**HOSTILE, "client_encoding": encoding, "search_path": "nowhere"})
    assert await verify(database.runtime_url) == []
    written = io.StringIO()
    for what in get_args(What):
        await export(database.runtime_url, what, "jsonl", written)
    assert DESCRIPTION in written.getvalue()
    times = re.findall(r'"created_at": "([^"]*)"', written.getvalue())
    assert {datetime.fromisoformat(time).utcoffset() for time in times} == {timedelta()}
    info, balance, (entry,) = await account(database.runtime_url, "عمر")
    assert (info.currency, balance, entry.created_at.utcoffset()) == ("OMR", 25_500, timedelta())


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_migration_works_under_hostile_defaults_of_its_role(empty_database: Database, encoding: str) -> None:
    set_defaults(empty_database, OWNER, {**HOSTILE, "client_encoding": encoding})
    assert await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    assert await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME) == []
    assert await verify(empty_database.runtime_url) == []


@pytest.fixture
def ascii_database(postgres: PostgresServer) -> Iterator[Database]:
    """A database in which PostgreSQL checks no text."""
    made = postgres.database("sql-ascii")
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        name, owner = sql.Identifier(made.name), sql.Identifier(OWNER)
        admin.execute(sql.SQL("DROP DATABASE {}").format(name))
        command = "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        admin.execute(sql.SQL(command).format(name, owner))
    yield made
    postgres.drop(made)


async def test_database_in_sql_ascii_is_refused_in_one_line(ascii_database: Database) -> None:
    with pytest.raises(MigrationError) as error:
        await migrate(ascii_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    assert error.value.message.startswith("the encoding of database sql-ascii is SQL_ASCII")
    assert "b'" not in error.value.message
    async with open_ledger(ascii_database.runtime_url) as ledger:
        with pytest.raises(LedgerUnavailableError, match="run `voucher-operator migrate`"):
            await ledger.check()

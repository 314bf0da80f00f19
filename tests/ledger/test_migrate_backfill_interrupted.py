"""The backfill of sums when it is killed or takes too long: the next run continues, or the message says what to do."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from testbed.postgres import Database
from testbed.processes import wait_until
from tests.ledger.backfill_helpers import SLOW_INDEX, complete, old_ledger, owner, up, wrong
from tests.ledger.helpers import ON_POSTGRESQL_16
from tests.ledger.test_migrate import ALL
from voucher_operator.ledger.schema import session as migrate_session
from voucher_operator.ledger.schema.session import MigrationError

pytestmark = ON_POSTGRESQL_16

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
from voucher_operator.ledger.schema.backfill import backfill
from voucher_operator.ledger.schema.session import Plan
backfill(Plan(sys.argv[1], "OMR", 3, "nobody", 60.0), portion=1, codes=1)
"""


def killed(database: Database, moment: str, block: str) -> None:
    """Run the summing in a process, get in its way at the `moment` given (a query with a row), and kill it there."""
    with owner(database) as blocker:
        blocker.execute("SET lock_timeout = '30s'")
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, database.owner_url], env={**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        )
        with process:
            wait_until(lambda: blocker.execute(moment.encode()).fetchone() is not None, moment)
            blocker.execute("BEGIN")
            assert blocker.execute(block.encode()).fetchone() is not None, "it was over too early"
            process.send_signal(signal.SIGKILL)
            process.wait()
        blocker.execute("ROLLBACK")


def many_entries(database: Database) -> None:
    with owner(database) as connection:
        connection.execute(
            "ALTER TABLE credit_ledger DISABLE TRIGGER vouchers_before_insert; "
            "INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT c.id, 1, 'promo:SPRING' "
            "FROM customers AS c, generate_series(1, 20000) WHERE c.user_id = 'raw'; "
            "ALTER TABLE credit_ledger ENABLE TRIGGER vouchers_before_insert"
        )


async def test_backfill_killed_between_portions_continues(empty_database: Database) -> None:
    await old_ledger(empty_database, customers=2)
    many_entries(empty_database)
    await asyncio.to_thread(
        killed,
        empty_database,
        "SELECT FROM vouchers.backfill_total WHERE granted_minor > 20000",
        "SELECT upto FROM vouchers.backfill_progress WHERE NOT finished FOR UPDATE",
    )
    assert not await complete(empty_database)
    assert [one for one in await wrong(empty_database) if one.startswith("granted")] == []
    assert await up(empty_database) == []
    assert await complete(empty_database)
    with owner(empty_database) as connection:
        query = "SELECT granted_minor FROM promo_codes WHERE code = 'SPRING'"
        assert connection.execute(query).fetchone() == (20_013_000,)


async def test_backfill_killed_while_waiting_for_a_row_continues(empty_database: Database) -> None:
    await old_ledger(empty_database, customers=2)
    with owner(empty_database) as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM promo_codes WHERE code = 'lower' FOR UPDATE")
        await asyncio.to_thread(
            killed,
            empty_database,
            "SELECT FROM vouchers.backfill_total AS s JOIN promo_codes AS p USING (code) HAVING count(*) = 1",
            "SELECT code FROM vouchers.backfill_total WHERE code = 'lower'",
        )
        with pytest.raises(MigrationError, match=rf"pid {holder.info.backend_pid} .* on .*promo_codes"):
            await up(empty_database, retry_seconds=0.1)
        holder.execute("ROLLBACK")
    assert await up(empty_database) == []
    assert await complete(empty_database)
    assert await wrong(empty_database) == []


SLOW = """
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM new_rows) > {most} THEN PERFORM pg_sleep(600); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER slow AFTER INSERT ON vouchers.backfill_total REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION public.slow();
"""

MANY_CODES = """
ALTER TABLE credit_ledger DISABLE TRIGGER vouchers_before_insert;
INSERT INTO promo_codes (code, credit_omr) SELECT 'many-' || n, 1 FROM generate_series(1, 1000) AS n;
INSERT INTO credit_ledger (customer_id, amount_omr, reason)
SELECT c.id, 1, 'promo:many-' || n FROM customers AS c, generate_series(1, 1000) AS n WHERE c.user_id = 'raw';
ALTER TABLE credit_ledger ENABLE TRIGGER vouchers_before_insert;
"""


async def test_portions_shrink_until_they_meet_the_statement_limit(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(migrate_session._SESSION, "statement_timeout", "1s")
    await old_ledger(empty_database, customers=1)
    with owner(empty_database) as connection:
        connection.execute(MANY_CODES)
        connection.execute(SLOW.format(most=101).encode())
    await up(empty_database)
    assert await complete(empty_database)
    assert [one for one in await wrong(empty_database) if one.startswith("granted")] == []


async def test_own_statement_limit_is_reported_without_lock_holder(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(migrate_session._SESSION, "statement_timeout", "1s")
    await old_ledger(empty_database, customers=1)
    with owner(empty_database) as connection:
        connection.execute(SLOW.format(most=0).encode())
    with pytest.raises(MigrationError, match=r"^adding up 100 of the ledger's entries took longer than the 5 s"):
        await up(empty_database)


async def test_slow_index_is_reported_with_the_command_to_build_it(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(migrate_session._SESSION, "statement_timeout", "1s")
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        admin.execute(SLOW_INDEX)
        with pytest.raises(MigrationError, match=r"migration 0006\.promo-codes-index took longer") as raised:
            await up(empty_database)
        assert "Sessions that hold locks" not in str(raised.value)
        command = str(raised.value).partition("start, ")[2].partition(";")[0]
        assert command.startswith("CREATE INDEX CONCURRENTLY")
        with owner(empty_database) as connection:
            connection.execute(command.encode())
        admin.execute("DROP EVENT TRIGGER slow_index")
    assert await up(empty_database) == ALL[5:]

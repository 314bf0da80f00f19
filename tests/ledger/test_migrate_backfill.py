"""Credit from before the migration is added up while others write: exactly, in portions, after any kill."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from testbed.postgres import RUNTIME, Database
from testbed.processes import wait_until
from tests.ledger.go_service import STARTUP, GoService
from tests.ledger.helpers import open_ledger, redeem_outcome, redeem_request
from tests.ledger.test_migrate import ALL
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema import session as migrate_session
from voucher_operator.ledger.schema.backfill import add_batch, apply_totals, backfill
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import APPLICATION_NAME, MigrationError, Plan

ROOT = Path(__file__).parents[2]
CODES = ("SPRING", "lower", "  padded ")
SCRIPT = """
import sys
from voucher_operator.ledger.schema.backfill import backfill
from voucher_operator.ledger.schema.session import Plan
backfill(Plan(sys.argv[1], "OMR", 3, "nobody", 60.0), portion=1, codes=1)
"""
# What a ledger looks like right after the last file was applied: no older entry is added up.
AFRESH = """
UPDATE vouchers.backfill_progress SET upto = '00000000-0000-0000-0000-000000000000', finished = false;
UPDATE promo_codes SET granted_minor = 0, last_redeemed_at = NULL;
"""


def plan(database: Database, retry_seconds: float = 60.0) -> Plan:
    return Plan(database.owner_url, "OMR", 3, RUNTIME, retry_seconds)


async def up(database: Database, retry_seconds: float = 60.0) -> list[str]:
    return await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME, retry_seconds=retry_seconds)


@contextmanager
def owner(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '0.2s'")
        yield connection


async def old_ledger(database: Database, customers: int) -> list[UUID]:
    """A ledger of the Go service, migrated, but nothing is added up. Each customer has redeemed all CODES."""
    async with GoService.connect(database.owner_url) as go:
        await go.start()
        for code in CODES:
            await go.issue(code, 5)
        users = [await go.customer(f"old-{n}") for n in range(customers)]
        for user in users:
            for code in CODES:
                await go.redeem(user, code)
    with owner(database) as connection:
        # An entry with the least id there is, one that belongs to an order, and one of a code that nobody knows.
        connection.execute(
            "INSERT INTO customers (user_id, tenant_id, email) VALUES ('raw', 't', 'e'); "
            "INSERT INTO credit_ledger (id, customer_id, amount_omr, reason, order_id) "
            "SELECT i, c.id, 3, r, o FROM customers AS c, (VALUES "
            "('00000000-0000-0000-0000-000000000000'::uuid, 'promo:SPRING', NULL), "
            "(gen_random_uuid(), 'promo:SPRING', 'order'), (gen_random_uuid(), 'promo:GONE', NULL)"
            ") AS v (i, r, o) WHERE c.user_id = 'raw'; "
            "INSERT INTO promo_redemptions SELECT id, 'SPRING' FROM customers WHERE user_id = 'raw'; "
            "UPDATE promo_codes SET times_redeemed = times_redeemed + 1 WHERE code = 'SPRING'"
        )
    await up(database)
    with owner(database) as connection:
        connection.execute(AFRESH)
    return users


async def wrong(database: Database) -> list[str]:
    """What `verify` finds, but for sums that are not complete, and the grant of a code that nobody knows."""
    found = await verify(database.runtime_url)
    return [
        f"{v.invariant} {v.subject} {v.detail}"
        for v in found
        if v.invariant != "spelling" and "'GONE'" not in v.subject and "not added up yet" not in v.detail
    ]


async def complete(database: Database) -> bool:
    return not any("not added up yet" in violation.detail for violation in await verify(database.runtime_url))


def waiting(database: Database, application: str) -> bool:
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        query = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s "
            "AND wait_event_type = 'Lock' AND wait_event <> 'advisory'"
        )
        return admin.execute(query, (application,)).fetchone() is not None


async def until_waiting(database: Database, application: str) -> None:
    await asyncio.to_thread(wait_until, lambda: waiting(database, application), f"{application} waiting for a lock")


def first_uncounted(connection: psycopg.Connection[Any]) -> tuple[UUID, str] | None:
    query = "SELECT customer_id, substr(reason, 7) FROM credit_ledger JOIN vouchers.backfill_progress ON id = upto"
    return connection.execute(query).fetchone()


async def test_sums_are_right_after_each_step_with_concurrent_writers(empty_database: Database) -> None:
    users = await old_ledger(empty_database, customers=6)
    leaving = [(user, code) for user in users[:4] for code in CODES]
    steps = 0
    with owner(empty_database) as connection:
        async with GoService.connect(empty_database.owner_url) as go, open_ledger(empty_database.runtime_url) as ledger:
            while not add_batch(connection, 2):
                steps += 1
                if leaving:
                    # Counted or not counted, as their ids will have it; at best the one that is counted next.
                    leaving.sort(key=lambda one: one == first_uncounted(connection))
                    assert await go.undo(*leaving.pop())
                newcomer = await go.customer(f"new-{steps}")
                await go.redeem(newcomer, "lower")
                if steps % 2:
                    assert await go.undo(newcomer, "lower")
                assert redeem_outcome(await ledger.redeem(redeem_request("SPRING", f"ours-{steps}"))) == "redeemed"
                assert await wrong(empty_database) == []
                assert not await complete(empty_database)
            while apply_totals(connection, 1):
                assert await go.undo(users[5], CODES[steps % 3])
                steps += 1
                assert await wrong(empty_database) == []
        assert steps > 10
        assert await complete(empty_database)
        assert add_batch(connection, 2)
        assert await wrong(empty_database) == []


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_portion_waits_for_an_uncommitted_deletion(empty_database: Database, end: str) -> None:
    """Without the lock the portion would count it, and the deletion would not take it off again."""
    users = await old_ledger(empty_database, customers=2)
    with owner(empty_database) as remover, owner(empty_database) as connection:
        remover.execute("BEGIN")
        remover.execute("DELETE FROM promo_redemptions WHERE customer_id = %s AND code = 'lower'", (users[0],))
        remover.execute("UPDATE promo_codes SET times_redeemed = times_redeemed - 1 WHERE code = 'lower'")
        remover.execute("DELETE FROM credit_ledger WHERE customer_id = %s AND reason = 'promo:lower'", (users[0],))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            add_batch(connection, 1000)
        connection.execute("SET lock_timeout = '30s'; SET application_name = 'patient'")
        summing = asyncio.create_task(asyncio.to_thread(add_batch, connection, 1000))
        await until_waiting(empty_database, "patient")
        remover.execute(end.encode())
        assert await summing
        assert apply_totals(connection, 10) == 3
    assert await wrong(empty_database) == []


async def test_deletion_during_a_portion_is_subtracted(empty_database: Database) -> None:
    users = await old_ledger(empty_database, customers=2)
    with owner(empty_database) as connection:
        async with GoService.connect(empty_database.owner_url) as go:
            connection.execute("BEGIN")
            assert add_batch(connection, 1000)
            undo = asyncio.create_task(go.undo(users[1], "lower"))
            await until_waiting(empty_database, "go-billing-service")
            connection.execute("COMMIT")
            assert await undo
        apply_totals(connection, 10)
    assert await wrong(empty_database) == []


async def test_entry_of_a_writer_without_row_lock_is_counted_after_commit(empty_database: Database) -> None:
    await old_ledger(empty_database, customers=2)
    with owner(empty_database) as writer, owner(empty_database) as connection:
        writer.execute("BEGIN")
        writer.execute(
            "INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, 2, 'promo:SPRING' FROM customers"
        )
        assert add_batch(connection, 1000)
        # Its row is held by the writer's trigger; the others' are served.
        assert apply_totals(connection, 10) == 2
        assert apply_totals(connection, 10) == 0
        writer.execute("COMMIT")
        assert apply_totals(connection, 10) == 1
    assert [one for one in await wrong(empty_database) if one.startswith("granted")] == []


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


async def test_go_service_starts_and_redeems_while_sums_are_missing(empty_database: Database) -> None:
    users = await old_ledger(empty_database, customers=2)
    with owner(empty_database) as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM vouchers.backfill_progress FOR SHARE")
        migration = asyncio.create_task(up(empty_database))
        await until_waiting(empty_database, APPLICATION_NAME)
        async with GoService.connect(empty_database.owner_url) as go:
            await go.start()
            await go.redeem(await go.customer("late"), "SPRING")
            await go.undo(users[0], "SPRING")
        assert not migration.done()
        holder.execute("ROLLBACK")
    await migration
    assert await complete(empty_database)
    assert await wrong(empty_database) == []


class Leavers:
    """Customers who take back, on threads of their own, what they redeemed long ago, and others who come."""

    def __init__(self, url: str, users: list[UUID], threads: int) -> None:
        self._url = url
        self._users = [users[n::threads] for n in range(threads)]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        self.begun = threading.Event()

    def __enter__(self) -> "Leavers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, n: int) -> None:
        try:
            asyncio.run(self._leave(n))
        except BaseException as error:
            self._errors.append(error)
        finally:
            self.begun.set()

    async def _leave(self, n: int) -> None:
        async with GoService.connect(self._url) as go:
            for user in self._users[n]:
                assert await go.undo(user, CODES[n % 3])
                await go.redeem(await go.customer(f"{n} after {user}"), "SPRING")
                self.begun.set()


async def test_concurrent_undos_during_backfill_keep_sums_right(empty_database: Database) -> None:
    users = await old_ledger(empty_database, customers=60)
    with Leavers(empty_database.owner_url, users, threads=4) as leavers:
        await asyncio.to_thread(leavers.begun.wait)
        await asyncio.to_thread(lambda: backfill(plan(empty_database), portion=1, codes=1))
    assert await complete(empty_database)
    assert await wrong(empty_database) == []


# Random text of 6 kB does not fit into an index, repeated text of 20 kB does: PostgreSQL compresses it.
LONG = "string_agg(md5(n::text), '')"
REPEATED = "repeat('x', 20000)"


async def test_reasons_longer_than_an_index_key_are_migrated(empty_database: Database) -> None:
    """Before and after the migration: a code of such a length cannot have a row, and needs no sum."""
    with owner(empty_database) as connection:
        for text in STARTUP:
            connection.execute(text.encode())
        connection.execute(
            f"INSERT INTO promo_codes (code, credit_omr) VALUES ({REPEATED}, 5); "
            "INSERT INTO customers (user_id, tenant_id, email) VALUES ('raw', 't', 'e'); "
            f"INSERT INTO promo_redemptions SELECT id, {REPEATED} FROM customers; "
            "UPDATE promo_codes SET times_redeemed = 1"
        )
        entries = (
            "INSERT INTO credit_ledger (customer_id, amount_omr, reason, order_id) SELECT c.id, 5, r, o "
            f"FROM customers AS c, (SELECT 'promo:' || {LONG}, NULL FROM generate_series(1, 200) AS n "
            f"UNION ALL SELECT {LONG}, NULL FROM generate_series(1, 200) AS n "
            f"UNION ALL SELECT 'promo:' || {LONG}, 'order' FROM generate_series(1, 200) AS n) AS v (r, o)"
        )
        known = (
            "INSERT INTO credit_ledger (customer_id, amount_omr, reason) "
            f"SELECT id, 5, 'promo:' || {REPEATED} FROM customers"
        )
        connection.execute(entries.encode())
        connection.execute(known.encode())
        await up(empty_database)
        sums = "SELECT granted_minor FROM promo_codes"
        assert connection.execute(sums).fetchall() == [(5_000,)]
        assert connection.execute("SELECT count(*) FROM vouchers.backfill_total").fetchone() == (0,)
        # What the triggers do with them.
        connection.execute(entries.encode())
        connection.execute(known.encode())
        assert connection.execute(sums).fetchall() == [(10_000,)]
        connection.execute("DELETE FROM credit_ledger WHERE amount_minor IS NOT NULL")
        assert connection.execute(sums).fetchall() == [(5_000,)]
        connection.execute(
            "UPDATE vouchers.backfill_progress SET upto = '00000000-0000-0000-0000-000000000000', finished = false"
        )
        connection.execute("UPDATE promo_codes SET granted_minor = 0")
        backfill(plan(empty_database), portion=1, codes=1)
        assert connection.execute(sums).fetchall() == [(5_000,)]
    found = await verify(empty_database.runtime_url)
    assert {v.invariant for v in found} == {"entries"}
    assert all("without a redemption row" in v.detail for v in found)


async def test_sum_of_a_code_whose_row_comes_later_is_applied(empty_database: Database) -> None:
    await old_ledger(empty_database, customers=1)
    with owner(empty_database) as connection:
        assert add_batch(connection, 1000)
        connection.execute("INSERT INTO promo_codes (code, credit_omr) VALUES ('GONE', 3)")
    assert await up(empty_database) == []
    assert [one for one in await wrong(empty_database) if one.startswith("granted")] == []


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


SLOW_INDEX = """
CREATE FUNCTION public.slow_index() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() NOT LIKE '%CONCURRENTLY%' THEN PERFORM pg_sleep(600); END IF;
END $$;
CREATE EVENT TRIGGER slow_index ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION public.slow_index();
"""


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

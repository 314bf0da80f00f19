"""Backfill of the sums of old grants: exact after each step, beside concurrent writers."""

import asyncio
import threading
from typing import Any
from uuid import UUID

import psycopg
import pytest

from testbed.postgres import Database
from tests.ledger.backfill_helpers import CODES, complete, old_ledger, owner, plan, until_waiting, up, wrong
from tests.ledger.go_service import STARTUP, GoService
from tests.ledger.helpers import ON_POSTGRESQL_16, open_ledger, redeem_outcome, redeem_request
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema.backfill import add_batch, apply_totals, backfill
from voucher_operator.ledger.schema.session import APPLICATION_NAME

pytestmark = ON_POSTGRESQL_16


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


class UndoLoad:
    """Customers who take back, on threads of their own, what they redeemed long ago, and others who come."""

    def __init__(self, url: str, users: list[UUID], threads: int) -> None:
        self._url = url
        self._users = [users[n::threads] for n in range(threads)]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        self.begun = threading.Event()

    def __enter__(self) -> "UndoLoad":
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
    with UndoLoad(empty_database.owner_url, users, threads=4) as undo_load:
        await asyncio.to_thread(undo_load.begun.wait)
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

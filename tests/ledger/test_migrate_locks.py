"""A migration beside other sessions: it retries when a lock is held, and continues after it was killed."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from testbed.postgres import RUNTIME, Database
from testbed.processes import wait_until
from tests.ledger.go_service import STARTUP_LIMIT, GoService, RedemptionRefused
from tests.ledger.helpers import ON_POSTGRESQL_16
from tests.ledger.test_migrate import ALL
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema.migrate import ADVISORY_LOCK, migrate
from voucher_operator.ledger.schema.session import APPLICATION_NAME, MigrationError

pytestmark = ON_POSTGRESQL_16

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys
from voucher_operator.ledger.schema.migrate import migrate
print(asyncio.run(migrate(sys.argv[1], currency="OMR", runtime_role=sys.argv[2])))
"""


@contextmanager
def reader_that_idles(database: Database, table: str) -> Iterator[int]:
    """Sit idle in a transaction after a plain SELECT, as a careless administrator does; yield the backend's pid."""
    with psycopg.connect(database.owner_url, application_name="careless") as connection:
        connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
        yield connection.info.backend_pid


def migrator_waits(database: Database) -> bool:
    """Whether a migration is queued for a lock on a table."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        query = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s "
            "AND wait_event_type = 'Lock' AND wait_event <> 'advisory'"
        )
        return admin.execute(query, (APPLICATION_NAME,)).fetchone() is not None


async def until_migrator_waits(database: Database) -> None:
    await asyncio.to_thread(wait_until, lambda: migrator_waits(database), "a migration that waits for a lock")


async def go_ledger(database: Database) -> None:
    async with GoService.connect(database.owner_url) as go:
        await go.start()
        await go.issue("lower", 5)
        await go.redeem(await go.customer("first"), "lower")


def migrate_process(database: Database) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, database.owner_url, RUNTIME],
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("table", ["promo_codes", "credit_ledger"])
async def test_migration_killed_half_way_continues_at_the_next_run(empty_database: Database, table: str) -> None:
    await go_ledger(empty_database)
    with reader_that_idles(empty_database, table), migrate_process(empty_database) as process:
        await until_migrator_waits(empty_database)
        process.send_signal(signal.SIGKILL)
        process.wait()
    applied = await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    # Those before the one that waited had been committed, with their marks.
    assert (
        applied[0] == {"promo_codes": "0003.promo-codes-columns", "credit_ledger": "0004.credit-ledger-columns"}[table]
    )
    assert await verify(empty_database.runtime_url) == []


async def test_waiting_migration_continues_after_the_first_is_killed(empty_database: Database) -> None:
    await go_ledger(empty_database)
    with reader_that_idles(empty_database, "promo_codes"), migrate_process(empty_database) as process:
        await until_migrator_waits(empty_database)
        second = asyncio.create_task(migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME))
        await asyncio.to_thread(wait_until, lambda: somebody_queues(empty_database), "a second migration in the queue")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (await second)[0] == "0003.promo-codes-columns"


def somebody_queues(database: Database) -> bool:
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = %s AND objid = %s"
        return admin.execute(query, divmod(ADVISORY_LOCK, 2**32)).fetchone() is not None


async def test_migration_retries_while_another_session_holds_a_lock(empty_database: Database) -> None:
    await go_ledger(empty_database)
    with reader_that_idles(empty_database, "credit_ledger"):
        migration = asyncio.create_task(migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME))
        await until_migrator_waits(empty_database)
        # Its lock request is before these statements in the queue, for a second at most.
        async with asyncio.timeout(STARTUP_LIMIT), GoService.connect(empty_database.owner_url) as go:
            customer = await go.customer("second")
            assert await go.redeem(customer, "lower") == 5
            assert await go.balance(customer) == 5
        assert not migration.done()
    assert (await migration)[-1] == ALL[-1]
    assert await verify(empty_database.runtime_url) == []


async def test_migration_stops_at_the_time_limit_and_names_the_lock_holder(empty_database: Database) -> None:
    await go_ledger(empty_database)
    with (
        reader_that_idles(empty_database, "promo_codes") as pid,
        pytest.raises(MigrationError, match=rf"pid {pid} \(idle in transaction, careless\) on promo_codes"),
    ):
        await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME, retry_seconds=0.1)
    assert await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)


@pytest.mark.parametrize("table", ["customers", "promo_codes", "promo_redemptions", "credit_ledger", "orders"])
async def test_migration_without_changes_waits_for_no_lock(database: Database, table: str) -> None:
    with reader_that_idles(database, table):
        assert await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME, retry_seconds=0) == []


class GoLoad:
    """The Go service under load, on threads of its own: every transaction it knows, over and over."""

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self._rounds = [0] * threads
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self) -> "GoLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def all_threads_reached(self, times: int) -> bool:
        """Whether each thread has gone round at least so often, or failed."""
        return bool(self._errors) or min(self._rounds) >= times

    @property
    def rounds(self) -> int:
        return min(self._rounds)

    def _run(self, n: int) -> None:
        try:
            asyncio.run(self._loop(n))
        except Exception as error:
            self._errors.append(error)

    async def _loop(self, n: int) -> None:
        async with GoService.connect(self._url) as go:
            while not self._stop.is_set():
                await self._round(go, f"user-{n}-{self._rounds[n]}", f"own-{n}")
                self._rounds[n] += 1

    async def _round(self, go: GoService, user: str, own: str) -> None:
        await go.issue(own, 7, max_redemptions=-1)
        customer = await go.customer(user)
        assert await go.redeem(customer, "shared") == 10
        await go.redeem(customer, own)
        with pytest.raises(RedemptionRefused):
            await go.redeem(customer, own)
        await go.spend(customer, 4)
        assert await go.balance(customer) == 13
        assert await go.undo(customer, own)
        assert not await go.undo(customer, own)
        assert await go.balance(customer) == 6
        assert await go.preview("shared") is not None
        assert {code.code for code in await go.codes()} >= {"shared"}
        await go.revoke(own)
        with pytest.raises(RedemptionRefused):
            await go.redeem(customer, own)


async def test_go_service_under_load_succeeds_before_during_and_after_migration(empty_database: Database) -> None:
    async with GoService.connect(empty_database.owner_url) as go:
        await go.start()
        await go.issue("shared", 10)
        with GoLoad(empty_database.owner_url, threads=4) as load:
            await asyncio.to_thread(wait_until, lambda: load.all_threads_reached(3), "rounds before the migration")
            assert await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
            await go.start()
            after = load.rounds + 3
            await asyncio.to_thread(wait_until, lambda: load.all_threads_reached(after), "rounds after the migration")
    assert await verify(empty_database.runtime_url) == []

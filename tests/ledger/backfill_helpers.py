"""A ledger of before the migration, whose sums are missing, and what `verify` finds in it.

See also: test_migrate_backfill.py, test_migrate_backfill_interrupted.py.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from testbed.postgres import RUNTIME, Database
from testbed.processes import wait_until
from tests.ledger.go_service import GoService
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import Plan

CODES = ("SPRING", "lower", "  padded ")

# What a ledger looks like right after the last file was applied: nothing that was there before is summed up.
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
    """A ledger of the Go service, migrated, but nothing summed up. Each customer has redeemed all CODES."""
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


SLOW_INDEX = """
CREATE FUNCTION public.slow_index() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() NOT LIKE '%CONCURRENTLY%' THEN PERFORM pg_sleep(600); END IF;
END $$;
CREATE EVENT TRIGGER slow_index ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION public.slow_index();
"""
"""Any CREATE INDEX but a concurrent one takes longer than every limit."""

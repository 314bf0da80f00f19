"""What the migrations make of the payments and disputes of the version before."""

from typing import Any

import psycopg

from testbed.postgres import RUNTIME, Database
from tests.ledger.test_migrate_renames import apply_up_to
from voucher_operator.ledger.schema.migrate import migrate

LAST_BEFORE = "0030"
PURCHASES = """
    INSERT INTO vouchers.purchase (key, order_id, customer_id, state, subscription_id, settled_at, deadline_at,
        due_minor, email, held_minor, plan_id, request_hash, subdomain, tenant_id, total_minor, uid, user_id)
    SELECT name, md5(name)::uuid, md5('customer')::uuid, state, 'sub_' || name, now(), now(),
        0, '', 0, '', '', '', '', 0, '', ''
    FROM (VALUES ('event', 'refunded'), ('ours', 'refunded'), ('theirs', 'refunded'), ('never', 'refunded'),
                 ('open', 'awaiting_payment')) AS v (name, state);
    INSERT INTO customers (id, user_id, tenant_id, email) VALUES (md5('customer')::uuid, 'u', 't', 'e');
    INSERT INTO vouchers.outbox (type, tenant_id, data)
    SELECT 'order.placed', 't', jsonb_build_object('id', md5('event')::uuid);
    INSERT INTO subscriptions (id, customer_id, tenant_id, stripe_subscription_id, plan_id)
    VALUES (md5('ours')::uuid, md5('customer')::uuid, 't', NULL, 'm'),
           (gen_random_uuid(), md5('customer')::uuid, 't', 'sub_theirs', 'm');
"""
DISPUTES = """
    INSERT INTO vouchers.payment (session_id, order_id) VALUES ('cs_1', gen_random_uuid());
    INSERT INTO vouchers.dispute (dispute_id, session_id, status, event_at, settled_at)
    SELECT status, 'cs_1', status, now(), CASE WHEN status = 'under_review' THEN now() END
    FROM unnest(ARRAY['won', 'lost', 'warning_closed', 'prevented', 'needs_response', 'under_review']) AS status;
"""


async def upgraded(database: Database, contents: str, query: str) -> list[tuple[Any, ...]]:
    """Fill a ledger of the version before, migrate it, and read it."""
    apply_up_to(database, LAST_BEFORE)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(contents.encode())
        await migrate(database.owner_url, currency="OMR", runtime_role=RUNTIME)
        return admin.execute(query.encode()).fetchall()


async def test_refunded_purchase_that_was_delivered_says_so_after_the_migration(empty_database: Database) -> None:
    query = "SELECT key FROM vouchers.purchase WHERE order_placed ORDER BY 1"
    assert await upgraded(empty_database, PURCHASES, query) == [("event",), ("ours",), ("theirs",)]


async def test_only_open_disputes_are_reported_after_the_migration(empty_database: Database) -> None:
    query = "SELECT dispute_id FROM vouchers.dispute WHERE reported_status IS DISTINCT FROM status"
    assert await upgraded(empty_database, DISPUTES, query) == [("needs_response",)]

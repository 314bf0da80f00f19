"""A sound ledger of any size, written by PostgreSQL itself: for plans and times of statements, not for behaviour.

See also: `tests.ledger.test_plans` looks at the plans on a small one; `benchmarks.size` at the times on a large one.
"""

from dataclasses import dataclass

import psycopg

from testbed.postgres import Database

BUSY = "user-1"
"""The customer with many entries."""
SERVED, UNSERVED = "billing", "another-operator"
"""Namespaces of purchases: `UNSERVED` holds the ended ones whose end is not delivered yet."""

_CUSTOMERS = """
INSERT INTO customers (id, user_id, tenant_id, email)
SELECT md5('customer ' || n)::uuid, 'user-' || n, 'tenant', 'someone@example.com'
FROM generate_series(1, {customers}) AS n
"""
# The j-th redemption of a customer is of the j-th code after the customer's own.
_REDEMPTIONS = """
CREATE TEMPORARY TABLE redeemed AS
SELECT n, md5('customer ' || 1 + n % {customers})::uuid AS customer_id, 'user-' || 1 + n % {customers} AS user_id,
       'CODE-' || (n % {customers} + n / {customers}) % {codes} AS code, md5('grant ' || n)::uuid AS entry_id,
       now() - interval '20 days' * (1 - n::float / {redemptions}) AS instant
FROM generate_series(0, {redemptions} - 1) AS n;

INSERT INTO promo_codes (code, credit_omr, credit_minor, times_redeemed, granted_minor, last_redeemed_at)
SELECT code, 25, 25000, count(*), count(*) * 25000, max(instant) FROM redeemed GROUP BY code;

INSERT INTO vouchers.terms (code, owner_uid, owner_namespace, owner_name, owner_created_at, generation, credit_minor)
SELECT code, 'uid of ' || code, '{served}', lower(code), now(), 1, 25000 FROM promo_codes;

INSERT INTO promo_redemptions (customer_id, code, created_at) SELECT customer_id, code, instant FROM redeemed;

INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, created_at)
SELECT entry_id, customer_id, 25, CASE WHEN n % 2 = 0 THEN 25000 END, 'promo:' || code, instant FROM redeemed;

INSERT INTO vouchers.redemption (key, request_hash, uid, outcome, code, customer_id, user_id, credit_minor,
                                 grant_entry_id, decided_at)
SELECT '{served}/redemption-' || n, md5(n::text), md5('uid ' || n), 'redeemed', code, customer_id, user_id, 25000,
       entry_id, instant
FROM redeemed;

INSERT INTO vouchers.outbox (type, tenant_id, at, data, published_at)
SELECT 'voucher.redeemed', 'tenant', instant,
       jsonb_build_object('key', '{served}/redemption-' || n, 'customer_id', customer_id, 'user_id', user_id,
                          'credit_minor', 25000, 'currency', 'OMR', 'code', code), instant + interval '1 second'
FROM redeemed
WHERE n < {events} - {purchases} - {unserved}
ORDER BY n;

DROP TABLE redeemed
"""
# Gifts, and what the Go service's orders spent of them.
_ENTRIES = """
INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason, order_id, created_at)
SELECT CASE WHEN n < {busy} THEN md5('customer 1')::uuid ELSE md5('customer ' || 1 + n / 2 % {customers})::uuid END,
       CASE WHEN n % 2 = 0 THEN 10 ELSE -10 END, CASE n % 4 WHEN 0 THEN 10000 WHEN 1 THEN -10000 END,
       CASE WHEN n % 2 = 0 THEN 'gift' ELSE 'order-payment' END,
       CASE WHEN n % 2 = 1 THEN md5('order of the Go service ' || n)::uuid END,
       now() - interval '400 days' * (1 - n::float / {others})
FROM generate_series(0, {others} - 1) AS n
"""
_PURCHASES = """
CREATE TEMPORARY TABLE bought AS
SELECT n, CASE WHEN n < {purchases} + {awaiting} THEN '{served}' ELSE '{unserved_namespace}' END || '/buy-' || n
           AS key,
       CASE WHEN n >= {purchases} AND n < {purchases} + {awaiting} THEN 'awaiting_payment' ELSE 'completed' END
           AS state,
       md5('order ' || n)::uuid AS order_id, md5('hold ' || n)::uuid AS entry_id, 1 + n % {customers} AS customer,
       now() - interval '20 days' * (1 - n::float / ({purchases} + {awaiting} + {unserved})) AS instant
FROM generate_series(0, {purchases} + {awaiting} + {unserved} - 1) AS n;

INSERT INTO orders (id, customer_id, tenant_id, plan_id, amount_omr, amount_baisa, status)
SELECT order_id, md5('customer ' || customer)::uuid, 'tenant', 'm', 50, 50000,
       CASE state WHEN 'completed' THEN 'completed' ELSE 'pending' END
FROM bought;

INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
SELECT entry_id, md5('customer ' || customer)::uuid, -10, -10000, 'order-payment', order_id, instant FROM bought;

INSERT INTO vouchers.purchase (key, request_hash, uid, order_id, customer_id, user_id, tenant_id, email, plan_id, lines,
                               subdomain, total_minor, held_minor, due_minor, state, hold_entry_id, session_id,
                               checkout_url, session_expires_at, placed_at, deadline_at, settled_at, checked_at,
                               delivered_at, look_at)
SELECT key, md5(key), md5('uid ' || key), order_id, md5('customer ' || customer)::uuid, 'user-' || customer, 'tenant',
       'someone@example.com', 'm',
       '[{{"kind": "plan", "id": "m", "slug": "m", "name": "Medium", "price_minor": 50000}}]', 'kestrel',
       50000, 10000, 40000, state, entry_id, 'cs_' || n, 'https://checkout.example.com/cs_' || n,
       now() + interval '20 hours', instant, instant, settled_at, CASE WHEN settled_at IS NULL THEN now() END,
       CASE WHEN n < {purchases} THEN settled_at END, now() + interval '20 days' + interval '1 minute' * (n % 10000)
FROM (SELECT b.*, CASE WHEN b.state = 'completed' THEN b.instant END AS settled_at FROM bought AS b) AS b;

UPDATE vouchers.purchase SET look_at = NULL WHERE state <> 'completed';

INSERT INTO vouchers.outbox (type, tenant_id, at, data, published_at)
SELECT 'order.placed', 'tenant', instant, jsonb_build_object('id', order_id, 'total_minor', 50000),
       instant + interval '1 second'
FROM bought
WHERE state = 'completed'
ORDER BY n;

INSERT INTO vouchers.webhook_event (event_id, type, raw, session_id, order_id, outcome, received_at)
SELECT 'evt_' || n, 'checkout.session.completed', convert_to(repeat('{{"id": "evt"}}', 20), 'UTF8'), 'cs_' || n,
       CASE WHEN n < {purchases} THEN md5('order ' || n)::uuid END,
       CASE WHEN n < {purchases} THEN 'applied' ELSE 'no_change' END,
       now() - interval '80 days' * (1 - n::float / {webhook_events})
FROM generate_series(0, {webhook_events} - 1) AS n;

DROP TABLE bought
"""


@dataclass(frozen=True)
class Size:
    """How many rows of what. The redemptions are a few for each customer; each purchase has an entry, too."""

    redemptions: int
    entries: int
    purchases: int
    """Completed and delivered ones."""
    awaiting: int
    """Purchases that wait for their payment and were looked at just now."""
    unserved: int
    """Ended and undelivered ones of the namespace `UNSERVED`."""
    events: int
    """In the outbox, all of them published and none of them old."""
    webhook_events: int
    """In the inbox, none of them old."""
    busy: int
    """Entries of the customer `BUSY`."""

    @classmethod
    def of(cls, redemptions: int) -> "Size":
        """The size of a ledger with so many redemptions, in fixed proportions."""
        return cls(
            redemptions=redemptions,
            entries=redemptions * 53 // 10,
            purchases=redemptions // 5,
            awaiting=redemptions // 10,
            unserved=redemptions // 5,
            events=redemptions,
            webhook_events=redemptions,
            busy=redemptions // 5,
        )


def fill(database: Database, size: Size) -> None:
    """Write the rows into a migrated ledger without any, and gather their statistics. Raises psycopg's errors."""
    values = {
        **{name: getattr(size, name) for name in Size.__dataclass_fields__},
        "customers": max(size.redemptions // 3, 1),
        "codes": max(size.redemptions // 1000, 10),
        "others": size.entries - size.redemptions - size.purchases - size.awaiting - size.unserved,
        "served": SERVED,
        "unserved_namespace": UNSERVED,
    }
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        # Neither our triggers nor foreign keys: all that they would do is written here.
        admin.execute("SET session_replication_role = replica")
        admin.execute("SET synchronous_commit = off")
        for part in (_CUSTOMERS, _REDEMPTIONS, _ENTRIES, _PURCHASES):
            for statement in part.format(**values).split(";\n"):
                admin.execute(statement.encode())
        admin.execute("UPDATE vouchers.backfill_progress SET finished = true")
        # As `migrate` does for the customers of before.
        admin.execute(
            "INSERT INTO vouchers.account SELECT customer_id, sum(coalesce(amount_minor, amount_omr * 1000)) "
            "FROM credit_ledger GROUP BY customer_id ON CONFLICT (customer_id) DO UPDATE "
            "SET balance_minor = excluded.balance_minor"
        )
        admin.execute("VACUUM (ANALYZE)")

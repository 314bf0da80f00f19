-- Applies a payment's event to a purchase: state, order, credit, subscription and event in one statement. Runs after
-- customer_lock.sql and payment_lock.sql. A release negates the exact amount of the entry that it releases. A subscription
-- has its order's id, by which it is found when the processor has reported no other. One that another writer has inserted
-- stays. A subscription that must end is checked next; a paid purchase after a day.
WITH target AS MATERIALIZED (
    SELECT p.*, gen_random_uuid() AS entry_id, clock_timestamp() AS instant
    FROM vouchers.purchase AS p
    WHERE p.key = %(key)s
),
taken AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
    SELECT t.entry_id, t.customer_id, vouchers.floor_to_major(-t.held_minor), -t.held_minor, 'order-payment', t.order_id::text,
           t.instant
    FROM target AS t
    WHERE %(take)s::boolean AND t.held_minor > 0
    RETURNING id
),
released AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
    SELECT t.entry_id, e.customer_id, -e.amount_omr, -coalesce(e.amount_minor, e.amount_omr * vouchers.scale()), e.reason,
           e.order_id, t.instant
    FROM target AS t
    JOIN credit_ledger AS e ON e.id = t.hold_entry_id
    WHERE %(release)s::boolean AND t.release_entry_id IS NULL
    RETURNING id
),
ordered AS (
    UPDATE orders AS o
    SET status = %(order_status)s, stripe_session_id = coalesce(o.stripe_session_id, %(session)s::text)
    FROM target AS t
    WHERE o.id = t.order_id
    RETURNING o.id, o.customer_id, t.tenant_id, o.plan_id, o.apps, o.addons, o.amount_omr, o.amount_baisa, o.status,
              t.subdomain, t.instant
),
subscribed AS (
    INSERT INTO subscriptions (id, customer_id, tenant_id, stripe_subscription_id, plan_id)
    SELECT t.order_id, t.customer_id, t.tenant_id, coalesce(%(subscription)s::text, t.subscription_id), t.plan_id
    FROM target AS t
    WHERE %(complete)s::boolean
    ON CONFLICT DO NOTHING
),
unsubscribed AS (
    UPDATE subscriptions AS s
    SET status = 'canceled', updated_at = t.instant
    FROM target AS t
    WHERE %(refund)s::boolean AND (s.id = t.order_id OR s.stripe_subscription_id = t.subscription_id)
),
placed AS (
    INSERT INTO vouchers.outbox (type, tenant_id, at, data)
    SELECT 'order.placed', o.tenant_id, o.instant, jsonb_build_object(
        'id', o.id, 'customer_id', o.customer_id, 'tenant_id', o.tenant_id, 'plan_id', o.plan_id, 'apps', o.apps,
        'addons', o.addons, 'amount_omr', o.amount_omr, 'amount_baisa', o.amount_baisa, 'status', o.status,
        'subdomain', o.subdomain
    )
    FROM ordered AS o
    WHERE %(complete)s::boolean
)
UPDATE vouchers.purchase AS p
SET state = %(state)s, reason = %(reason)s::text, settled_at = t.instant, updated_at = t.instant,
    session_id = coalesce(p.session_id, %(session)s::text),
    subscription_id = coalesce(%(subscription)s::text, p.subscription_id),
    hold_entry_id = coalesce((SELECT x.id FROM taken AS x), p.hold_entry_id),
    release_entry_id = CASE WHEN %(take)s::boolean THEN NULL
                            ELSE coalesce((SELECT r.id FROM released AS r), p.release_entry_id) END,
    look_at = CASE WHEN %(end)s::boolean THEN t.instant WHEN %(complete)s::boolean THEN t.instant + interval '1 day' END
FROM target AS t
WHERE p.key = t.key

-- Applies a payment's event to a purchase: state, order, credit, subscription and event in one statement. Runs after
-- customer_lock.sql and payment_lock.sql. What is taken is never more than the balance: the rest is the outstanding amount
-- of the payment, of which settled_minor is what a person has settled. A release negates the exact amount of the entry
-- that it releases. A subscription has its order's id, by which it is found when the processor has reported no other. One
-- that another writer has inserted stays. A subscription that must end is checked next; a paid purchase after a day.
WITH target AS MATERIALIZED (
    SELECT p.*, gen_random_uuid() AS entry_id, clock_timestamp() AS instant, y.clawback_entry_id,
           least(CASE WHEN %(claw_back)s::boolean THEN %(lost)s::bigint ELSE p.held_minor END,
                 greatest(coalesce(a.balance_minor, 0), 0)) AS takes_minor
    FROM vouchers.purchase AS p
    LEFT JOIN vouchers.account AS a ON a.customer_id = p.customer_id
    LEFT JOIN vouchers.payment AS y ON y.session_id = %(session)s::text
    WHERE p.key = %(key)s
),
taken AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
    SELECT t.entry_id, t.customer_id, vouchers.floor_to_major(-t.takes_minor), -t.takes_minor,
           CASE WHEN %(claw_back)s::boolean THEN 'chargeback' ELSE 'order-payment' END, t.order_id::text, t.instant
    FROM target AS t
    WHERE (%(take)s::boolean OR %(claw_back)s::boolean) AND t.takes_minor > 0
    RETURNING id
),
released AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
    SELECT t.entry_id, e.customer_id, -e.amount_omr, -coalesce(e.amount_minor, e.amount_omr * vouchers.scale()), e.reason,
           e.order_id, t.instant
    FROM target AS t
    JOIN credit_ledger AS e
      ON e.id = CASE WHEN %(release)s::boolean AND t.release_entry_id IS NULL THEN t.hold_entry_id
                     WHEN %(release_clawback)s::boolean THEN t.clawback_entry_id END
    RETURNING id, amount_minor
),
accounted AS (
    UPDATE vouchers.payment AS y
    SET lost_minor = CASE WHEN %(claw_back)s::boolean THEN %(lost)s::bigint ELSE 0 END,
        outstanding_minor = CASE
            WHEN %(take)s::boolean THEN t.held_minor - t.takes_minor
            WHEN %(claw_back)s::boolean THEN y.outstanding_minor + %(lost)s::bigint - t.takes_minor
            WHEN %(release_clawback)s::boolean
                THEN y.outstanding_minor - y.lost_minor + coalesce((SELECT r.amount_minor FROM released AS r), 0)
            ELSE 0
        END,
        clawback_entry_id = CASE WHEN %(claw_back)s::boolean THEN (SELECT x.id FROM taken AS x) END,
        updated_at = t.instant
    FROM target AS t
    WHERE y.session_id = %(session)s::text
      AND (%(take)s::boolean OR %(release)s::boolean OR %(claw_back)s::boolean OR %(release_clawback)s::boolean)
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
    INSERT INTO subscriptions (id, customer_id, tenant_id, stripe_subscription_id, plan_id, status)
    SELECT t.order_id, t.customer_id, t.tenant_id, coalesce(%(subscription)s::text, t.subscription_id), t.plan_id,
           CASE WHEN %(end)s::boolean THEN 'canceled' ELSE 'active' END
    FROM target AS t
    WHERE %(complete)s::boolean
    ON CONFLICT DO NOTHING
),
unsubscribed AS (
    UPDATE subscriptions AS s
    SET status = 'canceled', updated_at = t.instant
    FROM target AS t
    WHERE %(end)s::boolean AND (s.id = t.order_id OR s.stripe_subscription_id = t.subscription_id)
),
placed AS (
    INSERT INTO vouchers.outbox (type, tenant_id, at, data)
    SELECT 'order.placed', o.tenant_id, o.instant, jsonb_build_object(
        'id', o.id, 'customer_id', o.customer_id, 'tenant_id', o.tenant_id, 'plan_id', o.plan_id, 'apps', o.apps,
        'addons', o.addons, 'amount_omr', o.amount_omr, 'amount_baisa', o.amount_baisa, 'status', o.status,
        'subdomain', o.subdomain
    )
    FROM ordered AS o
    WHERE %(place)s::boolean
),
announced AS (
    INSERT INTO vouchers.outbox (type, tenant_id, at, data)
    SELECT %(event)s::text, t.tenant_id, t.instant, jsonb_build_object(
        'id', t.order_id, 'customer_id', t.customer_id, 'tenant_id', t.tenant_id, 'plan_id', t.plan_id,
        'subdomain', t.subdomain, 'currency', (SELECT s.currency FROM vouchers.sovereign AS s),
        'lost_minor', %(lost)s::bigint
    )
    FROM target AS t
    WHERE %(event)s::text IS NOT NULL
)
UPDATE vouchers.purchase AS p
SET state = %(state)s, reason = %(reason)s::text, settled_at = t.instant, updated_at = t.instant,
    session_id = coalesce(p.session_id, %(session)s::text),
    subscription_id = coalesce(%(subscription)s::text, p.subscription_id),
    order_placed = p.order_placed OR p.state = 'completed' OR %(complete)s::boolean,
    hold_entry_id = CASE WHEN %(take)s::boolean THEN (SELECT x.id FROM taken AS x) ELSE p.hold_entry_id END,
    release_entry_id = CASE WHEN %(take)s::boolean THEN NULL
                            WHEN %(release)s::boolean THEN coalesce((SELECT r.id FROM released AS r), p.release_entry_id)
                            ELSE p.release_entry_id END,
    look_at = CASE WHEN %(end)s::boolean THEN t.instant WHEN %(complete)s::boolean THEN t.instant + interval '1 day' END
FROM target AS t
WHERE p.key = t.key

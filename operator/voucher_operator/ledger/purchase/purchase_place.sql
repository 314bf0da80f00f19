-- Places a batch of orders; returns one row for each request: placed, known (bought before), refused, or none (its code was
-- refused, with the reason from redeem.sql). Runs after purchase_lock_customers.sql, account_lock.sql and redeem.sql in the
-- same transaction, so that the balance is newer than the lock. No key and no customer occurs twice. An order is
-- 'impossible' when the credit does not cover it and no card can pay the rest, or when credit would be spent for another
-- tenant than the customer's own without permission: the caller rolls everything back, and runs the batch again with that
-- refusal given (`refusal`, else ''). When another session writes the same key at this moment, a unique key or a CHECK is
-- violated, as in redeem.sql: the batch is repeated.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS instant, vouchers.scale() AS scale
),
request AS MATERIALIZED (
    SELECT r.*, m.instant, m.scale, c.id AS customer_id,
           NOT r.any_tenant AND coalesce(c.tenant_id <> r.tenant_id, false) AS mismatched,
           d.outcome AS prior, d.reason AS prior_reason, d.decided_at AS prior_decided_at,
           d.code AS promo_code, d.credit_minor AS granted_minor,
           CASE
               WHEN b.key IS NOT NULL AND b.request_hash = r.request_hash THEN 'known'
               WHEN b.key IS NOT NULL THEN 'conflict'
               WHEN d.outcome = 'refused' AND d.uid = r.uid THEN CASE WHEN g.redeemed THEN 'none' ELSE 'replay' END
               WHEN g.redeemed AND d.outcome = 'redeemed' AND d.request_hash = r.request_hash THEN 'judge'
               WHEN g.redeemed THEN 'none'
               WHEN d.key IS NULL OR d.outcome = 'refused' THEN 'judge'
               ELSE 'conflict'
           END AS way
    FROM unnest(
        %(keys)s::text[], %(hashes)s::text[], %(uids)s::text[], %(coded)s::boolean[], %(users)s::text[],
        %(tenants)s::text[], %(emails)s::text[], %(plans)s::text[], %(apps)s::jsonb[], %(addons)s::jsonb[],
        %(lines)s::jsonb[], %(subdomains)s::text[], %(totals)s::bigint[], %(payable)s::boolean[], %(steps)s::bigint[],
        %(minimums)s::bigint[], %(deadlines)s::integer[], %(any_tenant)s::boolean[], %(refusals)s::text[]
    ) WITH ORDINALITY AS r (
        key, request_hash, uid, coded, user_id, tenant_id, email, plan_id, apps, addons, lines, subdomain, total, payable,
        step, minimum, deadline, any_tenant, refusal, n
    )
    CROSS JOIN moment AS m
    -- Whether redeem.sql has judged this key in this transaction. It has not when the refusal is given: then only this
    -- statement sees what another replica has recorded for the key meanwhile.
    CROSS JOIN LATERAL (SELECT r.coded AND r.refusal = '' AS redeemed) AS g
    LEFT JOIN vouchers.redemption AS d ON d.key = r.key
    LEFT JOIN vouchers.purchase AS b ON b.key = r.key
    LEFT JOIN customers AS c ON c.user_id = r.user_id
),
-- Never more than the balance, which the Go service can make negative, and never more than the order.
covered AS MATERIALIZED (
    SELECT a.*, a.total - greatest(least(a.total, e.balance), 0) AS open, a.total - e.balance AS short
    FROM request AS a
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT b.balance_minor FROM vouchers.account AS b WHERE b.customer_id = a.customer_id), 0) AS balance
    ) AS e
    WHERE a.way IN ('judge', 'none')
),
-- The card pays nothing, or an amount that the payment processor allows; the difference stays as credit. (PurchaseRequest
-- has the same rule.)
priced AS MATERIALIZED (
    SELECT c.*, CASE WHEN c.open = 0 THEN 0
                     ELSE (greatest(c.open, c.minimum) + c.step - 1) / c.step * c.step END AS due
    FROM covered AS c
),
judged AS MATERIALIZED (
    SELECT p.*, p.total - p.due AS held, p.due = 0 AS paid, gen_random_uuid() AS order_id,
           CASE WHEN p.total > p.due THEN gen_random_uuid() END AS entry_id,
           ceil(p.total::numeric / p.scale)::integer AS amount_omr, p.total * 1000 / p.scale AS amount_baisa,
           CASE WHEN p.due = 0 THEN 'completed' ELSE 'pending' END AS status,
           CASE
               WHEN p.refusal <> '' THEN p.refusal
               WHEN p.due < p.total AND p.mismatched THEN 'CustomerMismatch'
               WHEN p.due > 0 AND NOT p.payable THEN 'PaymentProcessorNotConfigured'
               WHEN p.due > p.total THEN 'InvalidOrder'
           END AS reason
    FROM priced AS p
    WHERE p.way = 'judge'
),
placed AS MATERIALIZED (
    SELECT * FROM judged AS j WHERE j.reason IS NULL
),
ordered AS (
    INSERT INTO orders (
        id, customer_id, tenant_id, plan_id, apps, addons, amount_omr, amount_baisa, status, promo_code, created_at
    )
    SELECT p.order_id, p.customer_id, p.tenant_id, p.plan_id, p.apps, p.addons, p.amount_omr, p.amount_baisa, p.status,
           p.promo_code, p.instant
    FROM placed AS p
),
spent AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
    SELECT p.entry_id, p.customer_id, floor(-p.held::numeric / p.scale)::integer, -p.held, 'order-payment',
           p.order_id::text, p.instant
    FROM placed AS p
    WHERE p.entry_id IS NOT NULL
),
-- It has the order's id, by which later payment events find it.
subscribed AS (
    INSERT INTO subscriptions (id, customer_id, tenant_id, plan_id, created_at, updated_at)
    SELECT p.order_id, p.customer_id, p.tenant_id, p.plan_id, p.instant, p.instant FROM placed AS p WHERE p.paid
),
announced AS (
    INSERT INTO vouchers.outbox (type, tenant_id, at, data)
    SELECT 'order.placed', p.tenant_id, p.instant, jsonb_build_object(
        'id', p.order_id, 'customer_id', p.customer_id, 'tenant_id', p.tenant_id, 'plan_id', p.plan_id, 'apps', p.apps,
        'addons', p.addons, 'amount_omr', p.amount_omr, 'amount_baisa', p.amount_baisa, 'status', p.status,
        'subdomain', p.subdomain
    )
    FROM placed AS p
    WHERE p.paid
    ORDER BY p.n
),
bought AS (
    INSERT INTO vouchers.purchase (
        key, request_hash, uid, order_id, customer_id, user_id, tenant_id, email, plan_id, apps, addons, lines, subdomain,
        total_minor, held_minor, due_minor, granted_minor, state, hold_entry_id, placed_at, deadline_at, settled_at,
        updated_at
    )
    SELECT p.key, p.request_hash, p.uid, p.order_id, p.customer_id, p.user_id, p.tenant_id, p.email, p.plan_id, p.apps,
           p.addons, p.lines, p.subdomain, p.total, p.held, p.due, CASE WHEN p.coded THEN p.granted_minor ELSE 0 END,
           p.status, p.entry_id, p.instant,
           p.instant + make_interval(secs => p.deadline), CASE WHEN p.paid THEN p.instant END, p.instant
    FROM placed AS p
),
-- A key that buys without a code is used up; a refusal that the caller gave is bound to key and uid.
result AS MATERIALIZED (
    SELECT j.*, CASE WHEN j.reason IS NULL THEN 'placed' ELSE 'refused' END AS outcome
    FROM judged AS j
    WHERE j.refusal <> '' OR (j.reason IS NULL AND NOT j.coded)
),
recorded AS (
    INSERT INTO vouchers.redemption (key, request_hash, uid, outcome, reason, customer_id, user_id, decided_at)
    SELECT a.key, a.request_hash, a.uid, a.outcome, a.reason, a.customer_id, a.user_id, a.instant
    FROM result AS a
    WHERE a.prior IS NULL
),
overwritten AS (
    UPDATE vouchers.redemption AS d
    SET outcome = CASE WHEN d.outcome = 'refused' AND d.decided_at = a.prior_decided_at THEN a.outcome
                       ELSE 'overtaken' END,
        request_hash = a.request_hash, uid = a.uid, reason = a.reason, code = NULL, customer_id = a.customer_id,
        user_id = a.user_id, decided_at = a.instant
    FROM result AS a
    WHERE a.prior IS NOT NULL AND d.key = a.key
)
SELECT j.n, CASE WHEN j.reason IS NULL THEN 'placed' WHEN j.refusal <> '' THEN 'refused' ELSE 'impossible' END
           AS outcome,
       j.reason, j.instant AS decided_at, false AS replayed, j.short AS short_minor, j.mismatched
FROM judged AS j
UNION ALL
SELECT a.n, CASE WHEN a.way IN ('known', 'none') THEN a.way ELSE 'refused' END,
       CASE a.way WHEN 'replay' THEN a.prior_reason WHEN 'conflict' THEN 'IdempotencyConflict' END,
       CASE WHEN a.way = 'replay' THEN a.prior_decided_at ELSE a.instant END, a.way IN ('known', 'replay'), c.short,
       a.mismatched
FROM request AS a
LEFT JOIN covered AS c ON c.n = a.n
WHERE a.way <> 'judge'

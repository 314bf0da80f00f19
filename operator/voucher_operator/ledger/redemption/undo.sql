-- Undoes a redemption completely or, when its credit has been spent, not at all. Runs after undo_lock_promo.sql and
-- customer_lock.sql. The reversal has the reason of the grant: the Go service's undo deletes a customer's entries by it,
-- and only together do the two add up to zero. If the grant entry is gone, the Go service has undone the redemption, with
-- its counter: only the outcome is written. The redemption row is deleted by a function, which checks outcome and reversal:
-- both are written before it runs.
WITH target AS MATERIALIZED (
    SELECT d.key, d.code, d.customer_id, e.id AS grant_id, e.reason, gen_random_uuid() AS reversal_id,
           coalesce(e.amount_minor, e.amount_omr * s.scale) AS amount,
           e.id IS NULL OR vouchers.lock_account(d.customer_id)
               >= greatest(coalesce(e.amount_minor, e.amount_omr * s.scale), 0)
               OR coalesce(e.amount_minor, e.amount_omr * s.scale) = 0 AS covered
    FROM vouchers.redemption AS d
    CROSS JOIN (SELECT vouchers.scale() AS scale) AS s
    LEFT JOIN credit_ledger AS e ON e.id = d.grant_entry_id
    WHERE d.key = %(key)s AND d.outcome = 'redeemed'
),
reversed AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, created_at)
    SELECT t.reversal_id, t.customer_id, vouchers.floor_to_major(-t.amount), -t.amount, t.reason, clock_timestamp()
    FROM target AS t
    WHERE t.covered AND t.grant_id IS NOT NULL
    RETURNING id
),
marked AS (
    UPDATE vouchers.redemption AS d
    SET outcome = 'undone', undone_at = clock_timestamp(), undone_by = session_user, undo_reported_at = clock_timestamp(),
        reversal_entry_id = CASE WHEN t.grant_id IS NOT NULL THEN t.reversal_id END
    FROM target AS t
    WHERE t.covered AND d.key = t.key
    RETURNING d.key, d.reversal_entry_id
),
removed AS MATERIALIZED (
    SELECT vouchers.take_back_redemption(m.key) AS found FROM marked AS m JOIN reversed AS r ON r.id = m.reversal_entry_id
),
counted AS (
    UPDATE promo_codes AS p
    SET times_redeemed = greatest(p.times_redeemed - (SELECT count(*) FROM removed AS r WHERE r.found)::integer, 0),
        granted_minor = p.granted_minor - t.amount
    FROM target AS t
    WHERE t.covered AND t.grant_id IS NOT NULL AND p.code = t.code
)
SELECT t.covered FROM target AS t

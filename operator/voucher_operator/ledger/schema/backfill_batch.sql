-- Adds up the next entries by id, of any kind, and moves on to the first one that is left. Runs after backfill_lock.sql in
-- the same transaction. One row: whether the end is reached.
-- A reason may be longer than a key of an index can be (2,704 bytes, compressed). If no row of promo_codes has the code of
-- such a reason now, none can ever have it: it is not counted.
WITH portion AS MATERIALIZED (
    SELECT e.id, e.amount_omr, e.amount_minor, e.reason, e.order_id, e.created_at
    FROM credit_ledger AS e
    WHERE e.id >= %(upto)s
    ORDER BY e.id
    LIMIT %(size)s::bigint + 1
),
next AS MATERIALIZED (
    SELECT p.id FROM portion AS p ORDER BY p.id OFFSET %(size)s LIMIT 1
),
added AS (
    INSERT INTO vouchers.backfill_total AS s (code, granted_minor, last_redeemed_at)
    SELECT substr(p.reason, 7), sum(p.amount_omr) * vouchers.scale(), max(p.created_at) FILTER (WHERE p.amount_omr > 0)
    FROM portion AS p
    WHERE p.id IS DISTINCT FROM (SELECT n.id FROM next AS n)
      AND p.amount_minor IS NULL AND p.reason LIKE 'promo:%%' AND coalesce(p.order_id, '') = ''
      AND CASE WHEN octet_length(p.reason) <= 2000 THEN true
               ELSE EXISTS (SELECT FROM promo_codes AS c WHERE c.code = substr(p.reason, 7)) END
    GROUP BY 1
    ON CONFLICT (code) DO UPDATE
    SET granted_minor = s.granted_minor + excluded.granted_minor,
        last_redeemed_at = greatest(s.last_redeemed_at, excluded.last_redeemed_at)
)
UPDATE vouchers.backfill_progress AS s
SET upto = coalesce((SELECT n.id FROM next AS n), s.upto), finished = NOT EXISTS (SELECT FROM next)
RETURNING s.finished

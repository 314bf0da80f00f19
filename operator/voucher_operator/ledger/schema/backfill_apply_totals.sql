-- Adds the totals to the rows of some codes that no other session holds at this moment: it waits for no lock, so it cannot
-- deadlock. One row for each code.
WITH free AS MATERIALIZED (
    SELECT p.code
    FROM vouchers.backfill_total AS s
    JOIN promo_codes AS p ON p.code = s.code
    LIMIT %(size)s
    FOR NO KEY UPDATE OF p SKIP LOCKED
),
taken AS (
    DELETE FROM vouchers.backfill_total AS s USING free AS f WHERE s.code = f.code
    RETURNING s.code, s.granted_minor, s.last_redeemed_at
)
UPDATE promo_codes AS p
SET granted_minor = p.granted_minor + t.granted_minor,
    last_redeemed_at = greatest(p.last_redeemed_at, t.last_redeemed_at)
FROM taken AS t
WHERE p.code = t.code

-- Codes of a batch, in normal form, that another session has locked at this moment.
-- The others are locked here until the end of this statement only.
WITH given AS MATERIALIZED (
    SELECT DISTINCT vouchers.normal_code(a.code) AS norm FROM unnest(%(codes)s::text[]) AS a (code)
),
free AS MATERIALIZED (
    SELECT p.code
    FROM promo_codes AS p
    WHERE vouchers.normal_code(p.code) = ANY (ARRAY(SELECT given.norm FROM given))
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT DISTINCT vouchers.normal_code(p.code)
FROM promo_codes AS p
WHERE vouchers.normal_code(p.code) = ANY (ARRAY(SELECT given.norm FROM given))
  AND p.code NOT IN (SELECT free.code FROM free)

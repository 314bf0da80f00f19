-- Codes of a batch, in normal form, that another session holds locked at this moment.
-- The free ones are locked for the length of this statement only.
WITH asked AS MATERIALIZED (
    SELECT DISTINCT vouchers.normal_code(a.code) AS norm FROM unnest(%(codes)s::text[]) AS a (code)
),
free AS MATERIALIZED (
    SELECT p.code
    FROM promo_codes AS p
    WHERE vouchers.normal_code(p.code) = ANY (ARRAY(SELECT asked.norm FROM asked))
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT DISTINCT vouchers.normal_code(p.code)
FROM promo_codes AS p
WHERE vouchers.normal_code(p.code) = ANY (ARRAY(SELECT asked.norm FROM asked))
  AND p.code NOT IN (SELECT free.code FROM free)

-- No more redemptions than the cap allows, or than there were when the cap was last set (lowering it below use is legal).
-- Uses of all spellings of a code count together for the row that the code means (redeem.sql has the same rule); the Go
-- service counts every row by itself.
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('times_redeemed is %s%s, the cap is %s, and it was set when %s were redeemed', p.uses,
              CASE WHEN p.spellings > 1 THEN ' in all spellings' ELSE '' END, p.max_redemptions, p.uses_at_cap) AS detail
FROM (
    SELECT q.code, q.max_redemptions, q.uses_at_cap, s.spellings,
           CASE WHEN q.code = s.norm OR s.spellings = 1 THEN s.uses ELSE q.times_redeemed END AS uses
    FROM promo_codes AS q
    JOIN (
        SELECT vouchers.normal_code(r.code) AS norm, count(*) AS spellings, sum(r.times_redeemed) AS uses
        FROM promo_codes AS r
        GROUP BY 1
    ) AS s ON s.norm = vouchers.normal_code(q.code)
) AS p
WHERE p.max_redemptions > 0 AND p.uses > greatest(p.max_redemptions, p.uses_at_cap)
ORDER BY p.code

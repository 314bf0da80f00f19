-- No two rows have codes with one normal form: only the one in normal spelling can be redeemed.
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('%s rows have the normal form of this code, which is not spelled so: only the row that is can be redeemed',
              p.spellings) AS detail
FROM (
    SELECT code, count(*) OVER (PARTITION BY vouchers.normal_code(code)) AS spellings FROM promo_codes
) AS p
WHERE p.spellings > 1 AND p.code <> vouchers.normal_code(p.code)
ORDER BY p.code

-- A live Voucher's code has its row. (A row that differs from the terms is drift, which the operator corrects by itself.)
SELECT t.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('voucher %s/%s is live, but has no row in promo_codes', t.owner_namespace, t.owner_name) AS detail
FROM vouchers.terms AS t
WHERE t.revoked_at IS NULL AND NOT EXISTS (SELECT FROM promo_codes AS p WHERE p.code = t.code)
ORDER BY t.code

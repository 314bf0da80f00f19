-- A live Voucher's code has its row: not removed, not revoked behind its back.
SELECT t.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('voucher %s/%s is live, but its row in promo_codes is %s', t.owner_namespace, t.owner_name,
              CASE WHEN p.code IS NULL THEN 'missing' ELSE 'revoked' END) AS detail
FROM vouchers.terms AS t
LEFT JOIN promo_codes AS p ON p.code = t.code
WHERE t.revoked_at IS NULL AND (p.code IS NULL OR p.deleted_at IS NOT NULL)
ORDER BY t.code

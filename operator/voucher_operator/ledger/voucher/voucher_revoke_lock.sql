SELECT 1
FROM promo_codes AS p
WHERE p.code = (SELECT t.code FROM vouchers.terms AS t WHERE t.owner_uid = %(uid)s AND t.revoked_at IS NULL)
FOR NO KEY UPDATE

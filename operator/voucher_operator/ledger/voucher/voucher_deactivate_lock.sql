-- A Voucher is the one with this uid, or the one whose name it has: in a restored cluster all uids are new.
SELECT 1
FROM promo_codes AS p
WHERE p.code IN (
    SELECT t.code
    FROM vouchers.terms AS t
    WHERE t.revoked_at IS NULL
      AND (t.owner_uid = %(uid)s OR t.owner_namespace = %(namespace)s AND t.owner_name = %(name)s)
)
ORDER BY p.code COLLATE "C"
FOR NO KEY UPDATE

-- Stops redemptions of a Voucher; its other terms stay. Runs after voucher_deactivate_lock.sql, which says whose they are.
WITH stopped AS (
    UPDATE vouchers.terms AS t
    SET active = false, updated_at = clock_timestamp()
    FROM promo_codes AS o
    WHERE o.code = t.code AND t.revoked_at IS NULL AND (t.active OR o.active)
      AND (t.owner_uid = %(uid)s OR t.owner_namespace = %(namespace)s AND t.owner_name = %(name)s)
    RETURNING t.code
),
hidden AS (
    UPDATE promo_codes AS p
    SET active = false
    FROM stopped AS s
    WHERE p.code = s.code
)
SELECT count(*) FROM stopped

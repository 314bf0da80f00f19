-- What a put decides by; runs after voucher_put_lock.sql and lock_promo.sql. One row: the currency; the row that the code
-- means (redeem.sql has the same rule), as promo_*; the live terms of another Voucher on the code, of another namespace
-- first, as holder_*; the Voucher's own terms, as own_*; the namespace that may issue the code when no Voucher holds it, and
-- the name of the absent Voucher of that namespace that it is kept for: for an hour, as long as a restore may take.
SELECT s.currency, w.norm,
       p.code AS promo_code, coalesce(p.credit_minor, p.credit_omr * vouchers.scale()) AS promo_credit_minor,
       p.description AS promo_description, p.active AS promo_active, greatest(p.max_redemptions, 0) AS promo_max_redemptions,
       p.deleted_at IS NOT NULL AS promo_deleted,
       h.owner_uid AS holder_uid, h.owner_namespace AS holder_namespace, h.owner_name AS holder_name,
       h.owner_created_at AS holder_created_at,
       m.code AS own_code, vouchers.normal_code(m.code) AS own_norm, m.generation AS own_generation,
       m.from_secret AS own_from_secret, m.credit_minor AS own_credit_minor, m.description AS own_description,
       m.active AS own_active, m.max_redemptions AS own_max_redemptions, m.valid_from AS own_valid_from,
       m.valid_until AS own_valid_until, m.revoked_at IS NOT NULL AS own_revoked,
       m.updated_at > clock_timestamp() - interval '1 minute' AS own_recent,
       f.namespace AS reserved_for, f.absent AS kept_for
FROM vouchers.sovereign AS s
CROSS JOIN (SELECT vouchers.normal_code(%(code)s) AS norm) AS w
LEFT JOIN LATERAL (
    SELECT r.*
    FROM (
        SELECT q.*, count(*) OVER () AS spellings FROM promo_codes AS q WHERE vouchers.normal_code(q.code) = w.norm
    ) AS r
    WHERE r.code = w.norm OR r.spellings = 1
) AS p ON true
LEFT JOIN LATERAL (
    SELECT t.*
    FROM vouchers.terms AS t
    WHERE vouchers.normal_code(t.code) = w.norm AND t.revoked_at IS NULL AND t.owner_uid <> %(uid)s
    ORDER BY t.owner_namespace = %(namespace)s, t.owner_created_at, t.owner_name
    LIMIT 1
) AS h ON true
LEFT JOIN LATERAL (
    SELECT coalesce(t.released_to, t.owner_namespace) AS namespace,
           CASE WHEN t.absent_at = t.revoked_at AND t.released_to IS NULL
                     AND t.revoked_at > clock_timestamp() - interval '1 hour' THEN t.owner_name END AS absent
    FROM vouchers.terms AS t
    WHERE vouchers.normal_code(t.code) = w.norm AND t.revoked_at IS NOT NULL
    ORDER BY t.revoked_at DESC
    LIMIT 1
) AS f ON true
LEFT JOIN vouchers.terms AS m ON m.owner_uid = %(uid)s

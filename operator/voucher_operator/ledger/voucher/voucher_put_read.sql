-- What a put decides by; runs after voucher_put_lock.sql and lock_promo.sql. One row: the currency; the row that the code means
-- (redeem.sql has the same rule); the live terms that somebody else has on the code, another namespace first; the terms that
-- the Voucher has itself; the namespace that may issue the code when nobody has it.
SELECT s.currency, w.norm,
       p.code, coalesce(p.credit_minor, p.credit_omr * vouchers.scale()), p.description, p.active,
       greatest(p.max_redemptions, 0), p.deleted_at IS NOT NULL,
       h.owner_uid, h.owner_namespace, h.owner_name, h.owner_created_at,
       m.code, vouchers.normal_code(m.code), m.generation, m.from_secret, m.credit_minor, m.description, m.active,
       m.max_redemptions, m.valid_from, m.valid_until, m.revoked_at IS NOT NULL,
       m.updated_at > clock_timestamp() - interval '1 minute', f.namespace
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
    SELECT coalesce(t.released_to, t.owner_namespace) AS namespace
    FROM vouchers.terms AS t
    WHERE vouchers.normal_code(t.code) = w.norm AND t.revoked_at IS NOT NULL
    ORDER BY t.revoked_at DESC
    LIMIT 1
) AS f ON true
LEFT JOIN vouchers.terms AS m ON m.owner_uid = %(uid)s

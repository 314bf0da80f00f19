-- Every code, with the Voucher that owns it, or owned it; amounts in minor units.
SELECT p.code,
       t.owner_namespace AS namespace,
       t.owner_name AS name,
       coalesce(t.from_secret, false) AS from_secret,
       p.description,
       coalesce(p.credit_minor, p.credit_omr * (SELECT vouchers.scale())) AS credit,
       p.active,
       p.max_redemptions,
       p.times_redeemed,
       p.granted_minor AS granted,
       t.valid_from,
       t.valid_until,
       p.created_at,
       p.last_redeemed_at,
       coalesce(t.revoked_at, p.deleted_at) AS revoked_at
FROM promo_codes AS p
LEFT JOIN vouchers.terms AS t ON t.code = p.code
ORDER BY p.created_at, p.code

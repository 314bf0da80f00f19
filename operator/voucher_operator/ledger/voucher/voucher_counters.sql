-- Counters and state of the vouchers that have an owner, by PostgreSQL's clock. The states are in the order of the refusals
-- of a redemption: the one that a customer would get comes first. NULL instead of uids means all owners. The uses of all
-- spellings of a code are added up, whichever row counts them.
SELECT t.owner_uid AS uid, t.owner_namespace AS namespace, t.owner_name AS name, t.generation,
       coalesce(u.times, 0) AS times_redeemed,
       greatest(coalesce(p.max_redemptions, t.max_redemptions), 0) AS max_redemptions,
       coalesce(u.granted_minor, 0) AS granted_minor, u.last_redeemed_at,
       CASE
           WHEN p.code IS NULL OR p.deleted_at IS NOT NULL OR NOT p.active THEN 'Inactive'
           WHEN clock_timestamp() > t.valid_until THEN 'Expired'
           WHEN clock_timestamp() < t.valid_from THEN 'Scheduled'
           WHEN p.max_redemptions > 0 AND u.times >= p.max_redemptions THEN 'Exhausted'
           ELSE 'Active'
       END AS state,
       p.code IS NULL OR p.deleted_at IS NOT NULL
           OR coalesce(p.credit_minor, p.credit_omr * (SELECT vouchers.scale())) <> t.credit_minor
           OR p.description <> t.description OR p.active <> t.active
           OR greatest(p.max_redemptions, 0) <> t.max_redemptions
           OR (t.code <> vouchers.normal_code(t.code)
               AND EXISTS (SELECT FROM promo_codes AS n WHERE n.code = vouchers.normal_code(t.code))) AS drifted
FROM vouchers.terms AS t
LEFT JOIN promo_codes AS p ON p.code = t.code
CROSS JOIN LATERAL (
    SELECT sum(q.times_redeemed)::integer AS times, sum(q.granted_minor)::bigint AS granted_minor,
           max(q.last_redeemed_at) AS last_redeemed_at
    FROM promo_codes AS q
    WHERE vouchers.normal_code(q.code) = vouchers.normal_code(t.code)
) AS u
WHERE t.revoked_at IS NULL
  AND t.owner_uid = ANY (
      coalesce(%(uids)s::text[], ARRAY(SELECT o.owner_uid FROM vouchers.terms AS o WHERE o.revoked_at IS NULL))
  )

-- What happened to the vouchers that have an owner, and where they stand by PostgreSQL's clock. The order of the states is
-- that of a redemption's refusals: whatever a customer would be told first comes first. No uids at all means everybody's.
SELECT t.owner_uid, t.owner_namespace, t.owner_name, t.generation,
       coalesce(p.times_redeemed, 0), greatest(coalesce(p.max_redemptions, t.max_redemptions), 0),
       coalesce(p.granted_minor, 0), p.last_redeemed_at,
       CASE
           WHEN p.code IS NULL OR p.deleted_at IS NOT NULL OR NOT p.active THEN 'Inactive'
           WHEN clock_timestamp() > t.valid_until THEN 'Expired'
           WHEN clock_timestamp() < t.valid_from THEN 'Scheduled'
           WHEN p.max_redemptions > 0 AND p.times_redeemed >= p.max_redemptions THEN 'Exhausted'
           ELSE 'Active'
       END,
       p.code IS NULL OR p.deleted_at IS NOT NULL
           OR coalesce(p.credit_minor, p.credit_omr * (SELECT vouchers.scale())) <> t.credit_minor
           OR p.description <> t.description OR p.active <> t.active
           OR greatest(p.max_redemptions, 0) <> t.max_redemptions
           OR (t.code <> vouchers.normal_code(t.code)
               AND EXISTS (SELECT FROM promo_codes AS n WHERE n.code = vouchers.normal_code(t.code)))
FROM vouchers.terms AS t
LEFT JOIN promo_codes AS p ON p.code = t.code
WHERE t.revoked_at IS NULL
  AND t.owner_uid = ANY (
      coalesce(%(uids)s::text[], ARRAY(SELECT o.owner_uid FROM vouchers.terms AS o WHERE o.revoked_at IS NULL))
  )

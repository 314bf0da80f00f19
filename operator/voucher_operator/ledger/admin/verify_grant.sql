-- A request that was granted has its own grant entry, with its customer, code and amount, and its redemption row.
SELECT d.code, d.customer_id, d.key,
       CASE
           WHEN e.id IS NULL THEN 'its grant entry is missing'
           WHEN e.customer_id IS DISTINCT FROM d.customer_id THEN 'its grant entry is another customer''s'
           WHEN e.reason IS DISTINCT FROM 'promo:' || d.code THEN 'its grant entry has another reason'
           WHEN a.minor <> d.credit_minor
               THEN format('its grant entry has %s minor units instead of %s', a.minor, d.credit_minor)
           ELSE 'its redemption row is missing'
       END AS detail
FROM vouchers.redemption AS d
LEFT JOIN credit_ledger AS e ON e.id = d.grant_entry_id
LEFT JOIN promo_redemptions AS r ON r.customer_id = d.customer_id AND r.code = d.code
CROSS JOIN LATERAL (SELECT coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale())) AS minor) AS a
WHERE d.outcome = 'redeemed'
  AND (e.id IS NULL OR r.code IS NULL OR e.customer_id IS DISTINCT FROM d.customer_id
       OR e.reason IS DISTINCT FROM 'promo:' || d.code OR a.minor <> d.credit_minor)
UNION ALL
SELECT min(d.code), NULL::uuid, min(d.key), format('%s requests share one grant entry', count(*))
FROM vouchers.redemption AS d
WHERE d.grant_entry_id IS NOT NULL
GROUP BY d.grant_entry_id
HAVING count(*) > 1
ORDER BY key

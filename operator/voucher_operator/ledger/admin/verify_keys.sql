-- Those of some keys that have no grant. Their Redemptions have the state Redeemed.
SELECT k.key
FROM unnest(%(keys)s::text[]) AS k (key)
WHERE NOT EXISTS (SELECT FROM vouchers.redemption AS d WHERE d.key = k.key AND d.outcome = 'redeemed')
ORDER BY k.key

-- The ends of these purchases are delivered. One that has another end since then must be delivered again.
UPDATE vouchers.purchase AS p
SET delivered_at = p.settled_at
FROM unnest(%(keys)s::text[], %(ends)s::timestamptz[]) AS d (key, settled_at)
WHERE p.key = d.key AND p.settled_at = d.settled_at

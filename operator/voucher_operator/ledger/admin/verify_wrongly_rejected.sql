-- Those of some requests that have a grant, although their Redemptions have the state Rejected.
SELECT r.key
FROM unnest(%(keys)s::text[], %(hashes)s::text[]) AS r (key, request_hash)
JOIN vouchers.redemption AS d ON d.key = r.key AND d.request_hash = r.request_hash AND d.outcome <> 'refused'
ORDER BY r.key

-- What the ledger has of some keys; a key of which it has nothing is left out. Judges nothing and locks nothing.
SELECT k.key, d.outcome, d.request_hash, p.state AS purchase_state
FROM unnest(%(keys)s::text[]) AS k (key)
LEFT JOIN vouchers.redemption AS d ON d.key = k.key
LEFT JOIN vouchers.purchase AS p ON p.key = k.key
WHERE d.key IS NOT NULL OR p.key IS NOT NULL

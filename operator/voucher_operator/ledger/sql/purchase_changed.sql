-- Purchases that changed since a moment, or all. The time of a change is taken before its commit: whoever asked a moment
-- ago may have missed one, so those of as long as a transaction can last come again.
SELECT p.key, p.updated_at
FROM vouchers.purchase AS p
WHERE p.updated_at > coalesce(%(after)s::timestamptz - interval '15 seconds', '-infinity')
ORDER BY p.updated_at, p.key

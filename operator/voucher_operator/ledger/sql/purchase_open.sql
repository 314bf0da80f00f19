-- Keys of purchases whose customer has no checkout URL yet, the oldest first.
SELECT p.key
FROM vouchers.purchase AS p
WHERE p.state = 'pending'
ORDER BY p.placed_at
LIMIT %(limit)s

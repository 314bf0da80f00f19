-- Purchases that wait for a payment and have not been looked at for a while, the longest-waiting first; now they have
-- been. One that somebody holds at this moment is left to the next look.
WITH stale AS MATERIALIZED (
    SELECT p.key
    FROM vouchers.purchase AS p
    WHERE p.state = 'awaiting_payment'
      AND greatest(p.checked_at, p.placed_at) < clock_timestamp() - make_interval(secs => %(seconds)s)
    ORDER BY greatest(p.checked_at, p.placed_at)
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE vouchers.purchase AS p
SET checked_at = clock_timestamp()
FROM stale AS s
WHERE p.key = s.key
RETURNING p.key

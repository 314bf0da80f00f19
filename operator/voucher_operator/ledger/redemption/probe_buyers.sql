-- Users of a batch whose row another session has locked at this moment in any mode but KEY SHARE, or whose account it has
-- locked: a purchase locks both. The others are locked here until the end of this statement only.
WITH free AS MATERIALIZED (
    SELECT c.id FROM customers AS c WHERE c.user_id = ANY (%(users)s::text[]) FOR NO KEY UPDATE SKIP LOCKED
),
unlocked AS MATERIALIZED (
    SELECT a.customer_id
    FROM vouchers.account AS a
    WHERE a.customer_id = ANY (ARRAY(SELECT free.id FROM free))
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT c.user_id
FROM customers AS c
LEFT JOIN vouchers.account AS a ON a.customer_id = c.id
WHERE c.user_id = ANY (%(users)s::text[])
  AND (c.id NOT IN (SELECT free.id FROM free)
       OR a.customer_id IS NOT NULL AND c.id NOT IN (SELECT unlocked.customer_id FROM unlocked))

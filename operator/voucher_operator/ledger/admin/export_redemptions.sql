-- Every request that was decided, and every redemption of a legacy writer (without a key); amounts in minor units. The
-- credit of the latter is added up in one pass over the entries: a lookup for each would take too long where most are a
-- legacy writer's.
WITH made AS (
    SELECT r.customer_id, r.code, r.created_at,
           coalesce(sum(coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale()))), 0)::bigint AS credit
    FROM promo_redemptions AS r
    LEFT JOIN credit_ledger AS e
        ON e.customer_id = r.customer_id AND substr(e.reason, 7) = r.code
        AND e.reason LIKE 'promo:%' AND coalesce(e.order_id, '') = ''
    GROUP BY r.customer_id, r.code
)
SELECT d.key, d.outcome, d.reason, d.code, d.user_id, d.customer_id, d.credit_minor AS credit, d.decided_at, d.undone_at
FROM vouchers.redemption AS d
UNION ALL
SELECT NULL, 'redeemed', NULL, m.code, c.user_id, m.customer_id, m.credit, m.created_at, NULL
FROM made AS m
JOIN customers AS c ON c.id = m.customer_id
WHERE NOT EXISTS (
    SELECT FROM vouchers.redemption AS d
    WHERE d.outcome = 'redeemed' AND d.customer_id = m.customer_id AND d.code = m.code
)
ORDER BY decided_at, key, customer_id

-- Per customer and code: one grant in force for a redemption row, none without one. For ours and for the legacy writer's.
WITH entry AS (
    SELECT e.customer_id, substr(e.reason, 7) AS code,
           sum(CASE WHEN coalesce(e.amount_minor, e.amount_omr) < 0 OR u.key IS NOT NULL THEN -1 ELSE 1 END) AS standing
    FROM credit_ledger AS e
    LEFT JOIN vouchers.redemption AS u ON u.reversal_entry_id = e.id
    WHERE e.reason LIKE 'promo:%' AND coalesce(e.order_id, '') = ''
    GROUP BY e.customer_id, substr(e.reason, 7)
)
SELECT coalesce(r.code, e.code) AS code, coalesce(r.customer_id, e.customer_id) AS customer_id, NULL::text AS key,
       CASE WHEN r.code IS NULL THEN format('%s grants stand without a redemption row', e.standing)
            ELSE format('%s grants stand for one redemption row', coalesce(e.standing, 0)) END AS detail
FROM promo_redemptions AS r
FULL JOIN entry AS e ON e.customer_id = r.customer_id AND e.code = r.code
WHERE coalesce(e.standing, 0) <> CASE WHEN r.code IS NULL THEN 0 ELSE 1 END
ORDER BY code, customer_id

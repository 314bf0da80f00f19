-- An open purchase holds its credit, once; a cancelled, rolled back or refunded one holds nothing. (What a completed or
-- charged back one has spent: verify_orders.sql.)
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE WHEN p.state IN ('pending', 'awaiting_payment')
            THEN format('is %s and holds %s minor units in %s entries instead of %s in %s', p.state,
                        -coalesce(sum(a.minor), 0), count(e.id), p.held_minor, (p.held_minor > 0)::integer)
            ELSE format('is %s and still holds %s minor units', p.state, -coalesce(sum(a.minor), 0)) END AS detail
FROM vouchers.purchase AS p
LEFT JOIN credit_ledger AS e ON e.order_id = p.order_id::text AND e.customer_id = p.customer_id
CROSS JOIN LATERAL (SELECT coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale())) AS minor) AS a
WHERE p.state NOT IN ('completed', 'charged_back')
GROUP BY p.key
HAVING CASE WHEN p.state IN ('pending', 'awaiting_payment')
            THEN coalesce(sum(a.minor), 0) <> -p.held_minor OR count(e.id) <> (p.held_minor > 0)::integer
            ELSE coalesce(sum(a.minor), 0) <> 0 END
ORDER BY p.key

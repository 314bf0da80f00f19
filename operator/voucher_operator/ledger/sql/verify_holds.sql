-- An open purchase holds its credit, once; one that was cancelled, rolled back or refunded holds nothing.
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE WHEN p.state IN ('pending', 'awaiting_payment')
            THEN format('is %s and holds %s minor units in %s entries instead of %s in %s', p.state,
                        -coalesce(h.minor, 0), coalesce(h.standing, 0), p.held_minor, (p.held_minor > 0)::integer)
            ELSE format('is %s and still holds %s minor units', p.state, -coalesce(h.minor, 0)) END AS detail
FROM vouchers.purchase AS p
LEFT JOIN (
    SELECT e.order_id, e.customer_id, sum(coalesce(e.amount_minor, e.amount_omr * vouchers.scale())) AS minor,
           count(*) AS standing
    FROM credit_ledger AS e
    WHERE e.order_id <> ''
    GROUP BY e.order_id, e.customer_id
) AS h ON h.order_id = p.order_id::text AND h.customer_id = p.customer_id
WHERE p.state IN ('pending', 'awaiting_payment')
      AND (coalesce(h.minor, 0) <> -p.held_minor OR coalesce(h.standing, 0) <> (p.held_minor > 0)::integer)
   OR p.state IN ('cancelled', 'rolled_back', 'refunded') AND coalesce(h.minor, 0) <> 0
ORDER BY p.key

-- A purchase has its order, with its customer, amounts and state; a completed one is paid by exactly the credit it holds.
WITH spent AS (
    SELECT e.order_id, e.customer_id, sum(coalesce(e.amount_minor, e.amount_omr * vouchers.scale())) AS minor
    FROM credit_ledger AS e
    WHERE e.order_id <> ''
    GROUP BY e.order_id, e.customer_id
)
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE
           WHEN o.id IS NULL THEN format('order %s is missing', p.order_id)
           WHEN o.customer_id <> p.customer_id THEN format('order %s is another customer''s', o.id)
           WHEN o.amount_baisa <> p.total_minor * 1000 / vouchers.scale()
                OR o.amount_omr <> -vouchers.whole(-p.total_minor)
               THEN format('order %s amounts to %s (%s baisa), the purchase to %s minor units', o.id, o.amount_omr,
                           o.amount_baisa, p.total_minor)
           WHEN o.status <> w.status THEN format('order %s is %s, the purchase %s', o.id, o.status, p.state)
           ELSE format('order %s has spent %s minor units of credit instead of %s', o.id, -coalesce(s.minor, 0),
                       p.held_minor)
       END AS detail
FROM vouchers.purchase AS p
JOIN (
    VALUES ('pending', 'pending'), ('awaiting_payment', 'pending'), ('completed', 'completed'),
           ('cancelled', 'cancelled'), ('rolled_back', 'failed'), ('refunded', 'refunded')
) AS w (state, status) ON w.state = p.state
LEFT JOIN orders AS o ON o.id = p.order_id
LEFT JOIN spent AS s ON s.order_id = p.order_id::text AND s.customer_id = p.customer_id
WHERE o.id IS NULL OR o.customer_id <> p.customer_id OR o.amount_baisa <> p.total_minor * 1000 / vouchers.scale()
   OR o.amount_omr <> -vouchers.whole(-p.total_minor) OR o.status <> w.status
   OR p.state = 'completed' AND -coalesce(s.minor, 0) <> p.held_minor
ORDER BY p.key

-- A purchase has its order, with its customer, amounts and state. A completed one is paid by exactly the credit it holds,
-- and a charged back one has also spent what was lost, both but for the outstanding amount. Major units of an order are
-- rounded up.
WITH spending AS (
    SELECT p.key, p.customer_id, p.order_id, p.state, p.total_minor,
           p.held_minor + coalesce((SELECT y.lost_minor - y.outstanding_minor FROM vouchers.payment AS y
                                    WHERE y.session_id = p.session_id AND y.order_id = p.order_id), 0) AS expected_minor,
           -coalesce(sum(coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale()))), 0) AS spent
    FROM vouchers.purchase AS p
    LEFT JOIN credit_ledger AS e ON e.order_id = p.order_id::text AND e.customer_id = p.customer_id
    GROUP BY p.key
)
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE
           WHEN o.id IS NULL THEN format('order %s is missing', p.order_id)
           WHEN o.customer_id <> p.customer_id THEN format('order %s is another customer''s', o.id)
           WHEN o.amount_baisa <> d.baisa OR o.amount_omr <> d.whole
               THEN format('order %s amounts to %s (%s baisa), the purchase to %s minor units', o.id, o.amount_omr,
                           o.amount_baisa, p.total_minor)
           WHEN o.status <> d.status THEN format('order %s is %s, the purchase %s', o.id, o.status, p.state)
           ELSE format('order %s has spent %s minor units of credit instead of %s', o.id, p.spent, p.expected_minor)
       END AS detail
FROM spending AS p
CROSS JOIN LATERAL (
    SELECT p.total_minor * 1000 / (SELECT vouchers.scale()) AS baisa,
           (p.total_minor + (SELECT vouchers.scale()) - 1) / (SELECT vouchers.scale()) AS whole,
           CASE p.state WHEN 'awaiting_payment' THEN 'pending' WHEN 'rolled_back' THEN 'failed' ELSE p.state END AS status
) AS d
LEFT JOIN orders AS o ON o.id = p.order_id
WHERE o.id IS NULL OR o.customer_id <> p.customer_id OR o.amount_baisa <> d.baisa OR o.amount_omr <> d.whole
   OR o.status <> d.status OR p.state IN ('completed', 'charged_back') AND p.spent <> p.expected_minor
ORDER BY p.key

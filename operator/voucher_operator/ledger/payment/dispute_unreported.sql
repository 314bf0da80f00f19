-- Disputes of orders in these namespaces whose status no Event reports yet.
SELECT d.dispute_id, p.key, d.status
FROM vouchers.dispute AS d
JOIN vouchers.payment AS y ON y.session_id = d.session_id
JOIN vouchers.purchase AS p ON p.order_id = y.order_id
WHERE d.reported_status IS DISTINCT FROM d.status AND vouchers.key_namespace(p.key) = ANY (%(namespaces)s::text[])
ORDER BY d.updated_at
LIMIT %(limit)s

SELECT e.id::text, coalesce(e.amount_minor, e.amount_omr * s.scale), e.reason, e.order_id, e.created_at
FROM customers AS c
JOIN credit_ledger AS e ON e.customer_id = c.id
CROSS JOIN (SELECT vouchers.scale() AS scale) AS s
WHERE c.user_id = %(user)s
ORDER BY e.created_at DESC, e.id
LIMIT %(limit)s

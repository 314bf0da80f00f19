-- All entries count, as they do for the Go service.
SELECT coalesce(sum(coalesce(e.amount_minor, e.amount_omr * s.scale)), 0)::bigint
FROM customers AS c
JOIN credit_ledger AS e ON e.customer_id = c.id
CROSS JOIN (SELECT vouchers.scale() AS scale) AS s
WHERE c.user_id = %(user)s

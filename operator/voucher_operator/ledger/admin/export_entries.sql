-- Every ledger entry; amounts in minor units.
SELECT e.id, e.customer_id, c.user_id, coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale())) AS amount, e.reason,
       e.order_id, e.status, e.created_at
FROM credit_ledger AS e
JOIN customers AS c ON c.id = e.customer_id
ORDER BY e.created_at, e.id

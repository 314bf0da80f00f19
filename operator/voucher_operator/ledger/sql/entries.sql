-- A customer's newest entries. A code that came from a Secret is not shown; the Voucher that it belongs to is.
SELECT e.id::text, coalesce(e.amount_minor, e.amount_omr * s.scale),
       CASE WHEN t.from_secret THEN 'promo:<secret ' || t.owner_namespace || '/' || t.owner_name || '>' ELSE e.reason END,
       e.order_id, e.created_at
FROM customers AS c
JOIN credit_ledger AS e ON e.customer_id = c.id
CROSS JOIN (SELECT vouchers.scale() AS scale) AS s
LEFT JOIN vouchers.terms AS t ON e.reason = 'promo:' || t.code
WHERE c.user_id = %(user)s
ORDER BY e.created_at DESC, e.id
LIMIT %(limit)s

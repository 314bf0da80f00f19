-- A customer's newest entries, read by index: `limit` of them, and those with the same time as the last. Instead of a code
-- that comes from a Secret, the Voucher that it belongs to is shown.
SELECT e.id::text AS id,
       coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale())) AS amount_minor,
       CASE WHEN t.from_secret THEN 'promo:<secret ' || t.owner_namespace || '/' || t.owner_name || '>' ELSE e.reason END
           AS reason,
       e.order_id, e.created_at
FROM customers AS c
CROSS JOIN LATERAL (
    SELECT l.id, l.amount_minor, l.amount_omr, l.reason, l.order_id, l.created_at
    FROM credit_ledger AS l
    WHERE l.customer_id = c.id
    ORDER BY l.created_at DESC
    FETCH FIRST (%(limit)s) ROWS WITH TIES
) AS e
LEFT JOIN vouchers.terms AS t ON t.code = substr(e.reason, 7) AND e.reason LIKE 'promo:%%'
WHERE c.user_id = %(user)s
ORDER BY e.created_at DESC, e.id
LIMIT %(limit)s

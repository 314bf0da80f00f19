-- The purchase that an event is about: by its session, or by the payment that it identifies, else by its order (a session
-- may be paid before it is recorded).
SELECT f.key, f.customer_id
FROM (
    SELECT p.key, p.customer_id, 1 AS rank FROM vouchers.purchase AS p WHERE p.session_id = %(session)s::text
    UNION ALL
    SELECT p.key, p.customer_id, 2
    FROM vouchers.payment AS y
    JOIN vouchers.purchase AS p ON p.order_id = y.order_id
    WHERE y.session_id = %(session)s::text OR y.payment_intent = %(intent)s::text
    UNION ALL
    SELECT p.key, p.customer_id, 3 FROM vouchers.purchase AS p WHERE p.order_id = %(order)s::uuid
) AS f
ORDER BY f.rank
LIMIT 1

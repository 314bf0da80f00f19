-- The customer gets a checkout URL. A purchase that is no longer pending stays as it is.
WITH recorded AS (
    UPDATE vouchers.purchase AS p
    SET state = 'awaiting_payment', session_id = %(session)s, checkout_url = %(url)s, session_expires_at = %(expires_at)s,
        updated_at = clock_timestamp()
    WHERE p.key = %(key)s AND p.state = 'pending'
    RETURNING p.order_id
)
UPDATE orders AS o
SET stripe_session_id = %(session)s
FROM recorded AS n
WHERE o.id = n.order_id

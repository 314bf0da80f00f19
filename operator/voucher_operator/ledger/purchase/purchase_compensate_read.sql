-- The code and the customer that a compensation has to lock; no row when there is nothing to compensate.
SELECT d.code, p.customer_id
FROM vouchers.purchase AS p
LEFT JOIN vouchers.redemption AS d ON d.key = p.key
WHERE p.key = %(key)s AND p.state = 'pending'

-- Nothing of a purchase that came to nothing goes on at the payment processor.
UPDATE vouchers.purchase AS p
SET look_at = NULL
WHERE p.key = %(key)s AND p.state IN ('cancelled', 'refunded')

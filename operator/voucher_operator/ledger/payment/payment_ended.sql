-- Nothing of a purchase that has ended without its payment continues at the payment processor: no check is due any more.
UPDATE vouchers.purchase AS p
SET look_at = NULL
WHERE p.key = %(key)s AND p.state IN ('cancelled', 'refunded', 'charged_back')

UPDATE vouchers.purchase AS p
SET stripe_customer_id = %(customer)s, updated_at = clock_timestamp()
WHERE p.key = %(key)s AND p.stripe_customer_id IS DISTINCT FROM %(customer)s::text

-- Locks a pending purchase, after promo_codes and customers. No row when another session has settled or compensated it.
SELECT 1 FROM vouchers.purchase AS p WHERE p.key = %(key)s AND p.state = 'pending' FOR NO KEY UPDATE

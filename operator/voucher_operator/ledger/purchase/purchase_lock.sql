-- After promo_codes and customers. No row comes back when somebody has settled or compensated it meanwhile.
SELECT 1 FROM vouchers.purchase AS p WHERE p.key = %(key)s AND p.state = 'pending' FOR NO KEY UPDATE

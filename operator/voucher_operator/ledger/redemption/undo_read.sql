SELECT d.code, d.customer_id FROM vouchers.redemption AS d WHERE d.key = %(key)s AND d.outcome = 'redeemed'

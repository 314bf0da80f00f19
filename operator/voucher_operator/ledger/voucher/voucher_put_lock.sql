-- Two puts of one code, or of one Voucher, follow each other, also while there is no row to lock.
SELECT pg_advisory_xact_lock(hashtextextended('voucher code ' || vouchers.normal_code(%(code)s), 0)),
       pg_advisory_xact_lock(hashtextextended('voucher uid ' || %(uid)s, 0))

-- Serializes the puts of one code, and those of one Voucher, also while there is no row to lock.
SELECT pg_advisory_xact_lock(hashtextextended('voucher code ' || vouchers.normal_code(%(code)s), 0)),
       pg_advisory_xact_lock(hashtextextended('voucher uid ' || %(uid)s, 0))

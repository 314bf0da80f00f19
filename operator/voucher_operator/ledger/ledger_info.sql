SELECT s.currency, s.minor_digits, clock_timestamp() AS now,
       current_setting('transaction_read_only')::boolean AS read_only
FROM vouchers.sovereign AS s

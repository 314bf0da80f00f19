SELECT s.currency, s.minor_digits, clock_timestamp() FROM vouchers.sovereign AS s

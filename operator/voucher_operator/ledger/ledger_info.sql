SELECT s.currency, s.minor_digits, clock_timestamp() AS now FROM vouchers.sovereign AS s

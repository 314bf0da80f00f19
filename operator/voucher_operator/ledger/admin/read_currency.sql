-- The currency that the first migration fixed.
SELECT s.currency FROM vouchers.sovereign AS s

-- Whether totals wait for a row of promo_codes that another session holds. (A code without a row needs no total.)
SELECT EXISTS (SELECT FROM vouchers.backfill_total AS s JOIN promo_codes AS p ON p.code = s.code)

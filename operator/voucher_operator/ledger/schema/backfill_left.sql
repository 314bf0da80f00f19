-- Whether sums wait for a row of promo_codes that somebody holds. (A code that has no row has nothing to be added to.)
SELECT EXISTS (SELECT FROM vouchers.backfill_total AS s JOIN promo_codes AS p ON p.code = s.code)

-- promo_codes.granted_minor is the sum of the code's entries that belong to no order; while `migrate` has not added up all
-- of them, of those that are counted. A total in vouchers.backfill_total counts, too.
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('granted_minor is %s, but its entries add up to %s', p.granted_minor,
              coalesce(e.total, 0) - coalesce(w.granted_minor, 0)) AS detail
FROM promo_codes AS p
LEFT JOIN vouchers.backfill_total AS w ON w.code = p.code
LEFT JOIN (
    SELECT substr(l.reason, 7) AS code, sum(coalesce(l.amount_minor, l.amount_omr * (SELECT vouchers.scale()))) AS total
    FROM credit_ledger AS l
    CROSS JOIN vouchers.backfill_progress AS s
    WHERE l.reason LIKE 'promo:%' AND coalesce(l.order_id, '') = ''
      AND (s.finished OR l.amount_minor IS NOT NULL OR l.id < s.upto)
    GROUP BY 1
) AS e ON e.code = p.code
WHERE p.granted_minor + coalesce(w.granted_minor, 0) <> coalesce(e.total, 0)
UNION ALL
SELECT NULL, NULL, NULL, 'the credit granted before the migration is not added up yet: run voucher-operator migrate'
WHERE EXISTS (SELECT FROM vouchers.backfill_progress AS s WHERE NOT s.finished)
   OR EXISTS (SELECT FROM vouchers.backfill_total AS w JOIN promo_codes AS p ON p.code = w.code)
ORDER BY code

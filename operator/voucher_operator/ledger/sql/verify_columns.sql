-- A whole-unit column and the minor units beside it differ by less than one whole unit. (NULL minor units: as the whole.)
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('credit_omr is %s, but credit_minor is %s', p.credit_omr, p.credit_minor) AS detail
FROM promo_codes AS p
WHERE abs(p.credit_omr * (SELECT vouchers.scale()) - p.credit_minor) >= (SELECT vouchers.scale())
UNION ALL
SELECT NULL, e.customer_id, NULL,
       format('entry %s: amount_omr is %s, but amount_minor is %s', e.id, e.amount_omr, e.amount_minor)
FROM credit_ledger AS e
WHERE abs(e.amount_omr * (SELECT vouchers.scale()) - e.amount_minor) >= (SELECT vouchers.scale())
ORDER BY code, customer_id, detail

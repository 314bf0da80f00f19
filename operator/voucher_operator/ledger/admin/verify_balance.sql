-- A customer's balance, the sum of all entries, is not negative.
SELECT NULL::text AS code, e.customer_id, NULL::text AS key,
       format('the balance is %s minor units', sum(coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale())))) AS detail
FROM credit_ledger AS e
GROUP BY e.customer_id
HAVING sum(coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale()))) < 0
ORDER BY e.customer_id

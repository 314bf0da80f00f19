-- promo_codes.granted_minor is the sum of the code's entries that belong to no order.
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('granted_minor is %s, but its entries sum to %s', p.granted_minor, coalesce(e.total, 0)) AS detail
FROM promo_codes AS p
LEFT JOIN (
    SELECT substr(reason, 7) AS code, sum(coalesce(amount_minor, amount_omr * vouchers.scale())) AS total
    FROM credit_ledger
    WHERE reason LIKE 'promo:%' AND coalesce(order_id, '') = ''
    GROUP BY 1
) AS e ON e.code = p.code
WHERE p.granted_minor <> coalesce(e.total, 0)
ORDER BY p.code

-- A customer redeems a code once, in whatever spelling, and by one request.
SELECT min(r.code) AS code, r.customer_id, NULL::text AS key,
       format('%s redemption rows of codes with one normal form', count(*)) AS detail
FROM promo_redemptions AS r
GROUP BY r.customer_id, vouchers.normal_code(r.code)
HAVING count(*) > 1
UNION ALL
SELECT min(d.code), d.customer_id, min(d.key), format('%s requests were granted the same code', count(*))
FROM vouchers.redemption AS d
WHERE d.outcome = 'redeemed'
GROUP BY d.customer_id, vouchers.normal_code(d.code)
HAVING count(*) > 1
ORDER BY code, customer_id

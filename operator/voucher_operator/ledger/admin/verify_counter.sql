-- promo_codes.times_redeemed is the number of promo_redemptions rows.
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('times_redeemed is %s, but there are %s redemption rows', p.times_redeemed, coalesce(r.number, 0)) AS detail
FROM promo_codes AS p
LEFT JOIN (SELECT code, count(*) AS number FROM promo_redemptions GROUP BY code) AS r ON r.code = p.code
WHERE p.times_redeemed <> coalesce(r.number, 0)
ORDER BY p.code

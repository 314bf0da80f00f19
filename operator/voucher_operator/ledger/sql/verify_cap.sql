-- No more redemptions than the cap allows, or than there were when the cap was last set (lowering it below use is legal).
SELECT p.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('times_redeemed is %s, the cap is %s, and it was set when %s were redeemed', p.times_redeemed,
              p.max_redemptions, p.uses_at_cap) AS detail
FROM promo_codes AS p
WHERE p.max_redemptions > 0 AND p.times_redeemed > greatest(p.max_redemptions, p.uses_at_cap)
ORDER BY p.code

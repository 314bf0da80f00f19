-- Every request that was decided, and every redemption that a legacy writer made (no key); amounts in minor units.
SELECT d.key, d.outcome, d.reason, d.code, d.user_id, d.customer_id, d.credit_minor AS credit, d.decided_at, d.undone_at
FROM vouchers.redemption AS d
UNION ALL
SELECT NULL, 'redeemed', NULL, r.code, c.user_id, r.customer_id,
       (SELECT coalesce(sum(coalesce(e.amount_minor, e.amount_omr * vouchers.scale())), 0)::bigint
        FROM credit_ledger AS e
        WHERE e.customer_id = r.customer_id AND e.reason = 'promo:' || r.code AND coalesce(e.order_id, '') = ''),
       r.created_at, NULL
FROM promo_redemptions AS r
JOIN customers AS c ON c.id = r.customer_id
WHERE NOT EXISTS (
    SELECT FROM vouchers.redemption AS d
    WHERE d.outcome = 'redeemed' AND d.customer_id = r.customer_id AND d.code = r.code
)
ORDER BY decided_at, key, customer_id

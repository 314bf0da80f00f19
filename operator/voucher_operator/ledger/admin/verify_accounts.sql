-- A customer's major units add up to the floor of the exact balance, and the account has that balance. For a customer
-- without an account, whose entries are all older than the accounts, only the exact and the major sum are compared.
SELECT NULL::text AS code, e.customer_id, NULL::text AS key,
       CASE WHEN a.balance_minor <> e.minor
            THEN format('the account has %s minor units, but its entries add up to %s', a.balance_minor, e.minor)
            ELSE format('the major units add up to %s, but the exact balance is %s minor units', e.whole, e.minor) END AS detail
FROM (
    SELECT l.customer_id, sum(l.amount_omr) AS whole,
           sum(coalesce(l.amount_minor, l.amount_omr * (SELECT vouchers.scale()))) AS minor
    FROM credit_ledger AS l
    GROUP BY l.customer_id
) AS e
LEFT JOIN vouchers.account AS a ON a.customer_id = e.customer_id
WHERE a.balance_minor <> e.minor OR e.whole <> floor(e.minor / (SELECT vouchers.scale()))
UNION ALL
SELECT NULL, a.customer_id, NULL, format('the account has %s minor units, but there is no entry', a.balance_minor)
FROM vouchers.account AS a
WHERE a.balance_minor <> 0 AND NOT EXISTS (SELECT FROM credit_ledger AS l WHERE l.customer_id = a.customer_id)
ORDER BY customer_id

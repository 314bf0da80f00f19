-- A customer's exact balance: one lookup. While the account is not opened, the sum of all entries, as for the Go service; 0
-- for an unknown user.
SELECT coalesce((
    SELECT coalesce(a.balance_minor, (
        SELECT sum(coalesce(e.amount_minor, e.amount_omr * (SELECT vouchers.scale())))
        FROM credit_ledger AS e
        WHERE e.customer_id = c.id
    ))
    FROM customers AS c
    LEFT JOIN vouchers.account AS a ON a.customer_id = c.id
    WHERE c.user_id = %(user)s
), 0)::bigint

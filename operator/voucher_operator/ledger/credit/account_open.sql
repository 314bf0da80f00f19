-- Opens the accounts of those of some users who are customers without an account.
SELECT vouchers.open_account(o.id)
FROM (
    SELECT c.id
    FROM customers AS c
    WHERE c.user_id = ANY (%(users)s::text[])
      AND NOT EXISTS (SELECT FROM vouchers.account AS a WHERE a.customer_id = c.id)
    ORDER BY c.id
) AS o

-- Locks the accounts of buyers, after their rows of customers and in the same order; opens those that are missing.
SELECT vouchers.lock_account(o.id)
FROM (SELECT c.id FROM customers AS c WHERE c.user_id = ANY (%(users)s::text[]) ORDER BY c.id) AS o

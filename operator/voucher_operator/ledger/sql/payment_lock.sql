-- Locks a purchase and says where it stands. Runs after undo_lock_customer.sql, so that the balance is younger than
-- that lock.
SELECT p.state, p.order_id::text, p.due_minor, p.held_minor, p.session_id,
       (SELECT coalesce(sum(coalesce(e.amount_minor, e.amount_omr * vouchers.scale())), 0)::bigint
        FROM credit_ledger AS e
        WHERE e.customer_id = p.customer_id) AS balance_minor
FROM vouchers.purchase AS p
WHERE p.key = %(key)s
FOR NO KEY UPDATE OF p

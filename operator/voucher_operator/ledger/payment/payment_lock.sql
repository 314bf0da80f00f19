-- Locks a purchase and says where it stands. Runs after customer_lock.sql. The balance is as of the account's lock,
-- which this takes, too.
SELECT p.state, p.order_id::text, p.due_minor, p.held_minor, p.session_id,
       vouchers.lock_account(p.customer_id) AS balance_minor
FROM vouchers.purchase AS p
WHERE p.key = %(key)s
FOR NO KEY UPDATE OF p

-- Locks a purchase and returns its state. Runs after customer_lock.sql. Locks the customer's account, too: the balance is
-- as of that lock. `delivered`: a version before this one records no `order_placed`, but what it completes has a subscription
-- with its order's id, unless another writer has inserted that of the payment processor first.
SELECT p.key, p.state, p.order_id::text AS order_id, p.due_minor, p.held_minor, p.session_id,
       vouchers.lock_account(p.customer_id) AS balance_minor,
       p.order_placed OR p.state IN ('completed', 'charged_back')
           OR EXISTS (SELECT FROM subscriptions AS s WHERE s.id = p.order_id) AS delivered
FROM vouchers.purchase AS p
WHERE p.key = %(key)s
FOR NO KEY UPDATE OF p

-- Purchases; the columns are named as the fields of `Purchase` (purchase/types.py).
SELECT p.key, p.uid, p.order_id::text AS order_id, p.state, p.reason, p.user_id, p.customer_id::text AS customer_id,
       p.tenant_id, p.email, p.plan_id, p.apps, p.addons, p.lines, p.subdomain, p.total_minor, p.held_minor, p.due_minor,
       p.granted_minor, p.stripe_customer_id, p.session_id, p.checkout_url, p.session_expires_at, p.placed_at,
       p.deadline_at, p.settled_at,
       p.deadline_at < clock_timestamp() AS overdue, p.request_hash,
       EXISTS (SELECT FROM vouchers.redemption AS d WHERE d.key = p.key AND d.outcome = 'redeemed') AS redeemed
FROM vouchers.purchase AS p
WHERE p.key = ANY (%(keys)s::text[])
ORDER BY p.placed_at, p.key

-- Every purchase; amounts in minor units. Of the total, `held` is paid by credit and `due` by card; `granted` is the credit
-- of the code.
SELECT p.key, p.state, p.reason, p.order_id, p.user_id, p.customer_id, p.tenant_id, p.plan_id,
       (SELECT string_agg(a.id, ' ' ORDER BY a.n) FROM jsonb_array_elements_text(p.addons) WITH ORDINALITY AS a (id, n))
           AS addons,
       p.subdomain, p.total_minor AS total, p.held_minor AS held, p.due_minor AS due, p.granted_minor AS granted,
       p.session_id, p.subscription_id, p.placed_at, p.settled_at
FROM vouchers.purchase AS p
ORDER BY p.placed_at, p.key

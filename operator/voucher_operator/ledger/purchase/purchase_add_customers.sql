-- Inserts customers who buy without a code and have no row yet. (For a code, redeem.sql inserts them, if it is granted.)
INSERT INTO customers (user_id, tenant_id, email)
SELECT a.user_id, a.tenant_id, a.email
FROM unnest(%(users)s::text[], %(tenants)s::text[], %(emails)s::text[]) AS a (user_id, tenant_id, email)
WHERE NOT EXISTS (SELECT FROM customers AS c WHERE c.user_id = a.user_id)
ORDER BY a.user_id COLLATE "C"
ON CONFLICT (user_id) DO NOTHING

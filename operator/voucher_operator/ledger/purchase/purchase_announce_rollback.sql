-- Last part of a compensation: the event with what was undone. A redemption whose credit was spent elsewhere has stayed.
INSERT INTO vouchers.outbox (type, tenant_id, at, data)
SELECT 'redemption.rolled_back', p.tenant_id, p.settled_at, jsonb_strip_nulls(jsonb_build_object(
    'key', p.key, 'order_id', p.order_id, 'customer_id', p.customer_id, 'user_id', p.user_id, 'reason', p.reason,
    'released_minor', p.held_minor, 'credit_minor', CASE WHEN d.outcome = 'undone' THEN d.credit_minor ELSE 0 END,
    'currency', (SELECT s.currency FROM vouchers.sovereign AS s),
    'code', CASE WHEN t.from_secret IS NOT TRUE THEN d.code END, 'namespace', t.owner_namespace, 'name', t.owner_name
))
FROM vouchers.purchase AS p
LEFT JOIN vouchers.redemption AS d ON d.key = p.key
LEFT JOIN vouchers.terms AS t ON t.code = d.code
WHERE p.key = %(key)s

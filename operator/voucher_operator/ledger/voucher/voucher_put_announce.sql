-- The event that a Voucher's code is issued, or issued again. A Voucher belongs to no tenant.
INSERT INTO vouchers.outbox (type, tenant_id, data)
SELECT 'voucher.issued', '', jsonb_strip_nulls(jsonb_build_object(
    'code', CASE WHEN NOT t.from_secret THEN t.code END, 'namespace', t.owner_namespace, 'name', t.owner_name,
    'credit_minor', t.credit_minor, 'currency', (SELECT s.currency FROM vouchers.sovereign AS s)
))
FROM vouchers.terms AS t
WHERE t.code = %(code)s

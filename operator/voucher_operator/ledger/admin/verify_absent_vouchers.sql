-- Live Vouchers of some namespaces that have no resource.
SELECT t.code, t.owner_namespace || '/' || t.owner_name AS voucher
FROM vouchers.terms AS t
WHERE t.revoked_at IS NULL AND t.owner_namespace = ANY (%(namespaces)s::text[])
  AND t.owner_namespace || '/' || t.owner_name <> ALL (%(present)s::text[])
ORDER BY 2

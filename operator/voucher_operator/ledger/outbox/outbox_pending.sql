-- Events that are not published yet, in the order in which they were written, without those of some tenants.
SELECT o.seq, o.id::text AS id, o.type, o.tenant_id, o.at, o.data, o.metadata
FROM vouchers.outbox AS o
WHERE o.published_at IS NULL AND o.tenant_id <> ALL (%(without)s::text[])
ORDER BY o.seq
LIMIT %(limit)s

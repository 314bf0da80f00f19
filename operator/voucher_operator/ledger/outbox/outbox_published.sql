UPDATE vouchers.outbox AS o
SET published_at = clock_timestamp()
WHERE o.id = ANY (%(ids)s::uuid[]) AND o.published_at IS NULL

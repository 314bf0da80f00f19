-- Nothing of the operator is left in these namespaces, which it has dropped.
UPDATE vouchers.served_namespace AS s
SET cleared_at = clock_timestamp()
WHERE s.namespace = ANY (%(namespaces)s::text[]) AND s.dropped_at IS NOT NULL AND s.cleared_at IS NULL

-- Records the namespaces that an operator serves; those that it served before, and does not now, are dropped.
WITH served AS (
    INSERT INTO vouchers.served_namespace AS s (namespace, operator, served_at)
    SELECT n.namespace, %(operator)s, clock_timestamp()
    FROM unnest(%(namespaces)s::text[]) AS n (namespace)
    ORDER BY n.namespace COLLATE "C"
    ON CONFLICT (namespace) DO UPDATE
    SET operator = excluded.operator, served_at = excluded.served_at, dropped_at = NULL, cleared_at = NULL
)
UPDATE vouchers.served_namespace AS s
SET dropped_at = clock_timestamp()
WHERE s.operator = %(operator)s AND s.dropped_at IS NULL AND s.namespace <> ALL (%(namespaces)s::text[])

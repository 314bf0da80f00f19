-- Purchases of these namespaces that have come to an end which not everybody has been told of: their Redemptions, and
-- for a completed one its Organization. Each at once when it has ended, then after every pause, the longest-waiting first,
-- the namespaces taking turns; now they have been looked at. One that somebody holds at this moment is left to the next
-- look, and one that only a newer version understands to that version (ledger/purchase_rows.py). Read by the index
-- purchase_undelivered_namespace, whose expressions are repeated here: no more rows of a namespace than are due.
WITH due AS MATERIALIZED (
    SELECT d.key, d.looked_at, d.turn
    FROM unnest(%(namespaces)s::text[]) AS n (namespace)
    CROSS JOIN LATERAL (
        SELECT p.key, w.looked_at, row_number() OVER (ORDER BY w.looked_at) AS turn
        FROM vouchers.purchase AS p
        CROSS JOIN LATERAL (
            SELECT CASE WHEN greatest(p.checked_at, p.placed_at) <= p.settled_at THEN '-infinity'::timestamptz
                        ELSE greatest(p.checked_at, p.placed_at) END AS looked_at
        ) AS w
        WHERE p.state NOT IN ('pending', 'awaiting_payment') AND p.delivered_at IS DISTINCT FROM p.settled_at
          AND vouchers.key_namespace(p.key) = n.namespace
          AND p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
          AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
          AND w.looked_at <= statement_timestamp() - make_interval(secs => %(seconds)s)
        ORDER BY w.looked_at
        LIMIT %(limit)s
    ) AS d
),
taken AS MATERIALIZED (
    SELECT p.key
    FROM due AS d
    JOIN vouchers.purchase AS p ON p.key = d.key
    WHERE p.state NOT IN ('pending', 'awaiting_payment') AND p.delivered_at IS DISTINCT FROM p.settled_at
      AND greatest(p.checked_at, p.placed_at)
          <= greatest(p.settled_at, statement_timestamp() - make_interval(secs => %(seconds)s))
    ORDER BY d.turn, d.looked_at
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF p SKIP LOCKED
)
UPDATE vouchers.purchase AS p
SET checked_at = clock_timestamp()
FROM taken AS o
WHERE p.key = o.key
RETURNING p.key

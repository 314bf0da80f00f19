-- Takes ended purchases of these namespaces whose end is not delivered: to their Redemption, and for a completed one to its
-- Organization. Each is due at once when it has ended, then after every pause, the longest unchecked first, the namespaces
-- in turn; it counts as checked then. One that another session holds at this moment is left to the next run, and one that
-- only a newer version understands to that version (purchase/rows.py). Reads the index purchase_undelivered_namespace,
-- whose expressions are repeated here: no more rows of a namespace than are due.
WITH due AS MATERIALIZED (
    SELECT d.key, d.checked, d.turn
    FROM unnest(%(namespaces)s::text[]) AS n (namespace)
    CROSS JOIN LATERAL (
        SELECT p.key, w.checked, row_number() OVER (ORDER BY w.checked) AS turn
        FROM vouchers.purchase AS p
        CROSS JOIN LATERAL (
            SELECT CASE WHEN greatest(p.checked_at, p.placed_at) <= p.settled_at THEN '-infinity'::timestamptz
                        ELSE greatest(p.checked_at, p.placed_at) END AS checked
        ) AS w
        WHERE p.state NOT IN ('pending', 'awaiting_payment') AND p.delivered_at IS DISTINCT FROM p.settled_at
          AND vouchers.key_namespace(p.key) = n.namespace
          AND p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
          AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
          AND w.checked <= statement_timestamp() - make_interval(secs => %(seconds)s)
        ORDER BY w.checked
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
    ORDER BY d.turn, d.checked
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF p SKIP LOCKED
)
UPDATE vouchers.purchase AS p
SET checked_at = clock_timestamp()
FROM taken AS o
WHERE p.key = o.key
RETURNING p.key

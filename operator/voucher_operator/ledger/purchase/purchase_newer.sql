-- Unfinished purchases that only a newer version understands: with a state, reason or line field that this version does not
-- know. No periodic task of this version takes them. Each arm reads a partial index of these tasks.
SELECT DISTINCT p.key
FROM (
    SELECT o.key, o.state, o.reason, o.lines FROM vouchers.purchase AS o WHERE o.state IN ('pending', 'awaiting_payment')
    UNION ALL
    SELECT o.key, o.state, o.reason, o.lines
    FROM vouchers.purchase AS o
    WHERE o.state NOT IN ('pending', 'awaiting_payment') AND o.delivered_at IS DISTINCT FROM o.settled_at
    UNION ALL
    SELECT o.key, o.state, o.reason, o.lines FROM vouchers.purchase AS o WHERE o.look_at < clock_timestamp()
) AS p
WHERE NOT (
    p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
    AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
)
ORDER BY p.key
LIMIT %(limit)s

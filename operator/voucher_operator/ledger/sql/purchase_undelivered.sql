-- Purchases of these namespaces that have come to an end which not everybody has been told of: their Redemptions, and
-- for a completed one its Organization. Each at once when it has ended, then after every pause, the longest-waiting first;
-- now they have been looked at. One that somebody holds at this moment is left to the next look, and one that only a newer
-- version understands to that version (ledger/purchase_rows.py).
WITH owed AS MATERIALIZED (
    SELECT p.key
    FROM vouchers.purchase AS p
    WHERE p.state NOT IN ('pending', 'awaiting_payment') AND p.delivered_at IS DISTINCT FROM p.settled_at
      AND split_part(p.key, '/', 1) = ANY (%(namespaces)s::text[])
      AND greatest(p.checked_at, p.placed_at)
          <= greatest(p.settled_at, clock_timestamp() - make_interval(secs => %(seconds)s))
      AND p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
      AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
    ORDER BY greatest(p.checked_at, p.placed_at)
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE vouchers.purchase AS p
SET checked_at = clock_timestamp()
FROM owed AS o
WHERE p.key = o.key
RETURNING p.key

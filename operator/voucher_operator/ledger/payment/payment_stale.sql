-- Takes purchases that await a payment and were not checked for a while, the longest unchecked first, and those that have
-- ended and are due for a check; they count as checked then. A completed one is due again when it is twice as old, for as
-- long as refunds are usual. One that another session holds at this moment is left to the next run, and one that only a
-- newer version understands to that version (purchase/rows.py).
WITH open AS MATERIALIZED (
    SELECT p.key
    FROM vouchers.purchase AS p
    WHERE p.state = 'awaiting_payment'
      AND greatest(p.checked_at, p.placed_at) < statement_timestamp() - make_interval(secs => %(seconds)s)
      AND p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
      AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
    ORDER BY greatest(p.checked_at, p.placed_at)
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
),
ended AS MATERIALIZED (
    SELECT p.key
    FROM vouchers.purchase AS p
    WHERE p.look_at < statement_timestamp()
      AND p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
      AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
    ORDER BY p.look_at
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE vouchers.purchase AS p
SET checked_at = CASE WHEN p.state = 'awaiting_payment' THEN m.instant ELSE p.checked_at END,
    look_at = CASE
        WHEN p.state IN ('cancelled', 'refunded', 'charged_back') THEN m.instant + make_interval(secs => greatest(%(seconds)s, 0))
        WHEN p.state = 'completed' AND m.instant < p.settled_at + interval '120 days'
            THEN m.instant + (m.instant - p.settled_at)
    END
FROM (SELECT o.key FROM open AS o UNION ALL SELECT e.key FROM ended AS e) AS s
CROSS JOIN (SELECT clock_timestamp() AS instant) AS m
WHERE p.key = s.key
RETURNING p.key

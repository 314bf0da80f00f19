-- The same for what the payment processor told longer ago than it ever repeats anything: the purchase's own state answers
-- such a copy then. What waits for a human stays for as long as it waits.
WITH old AS MATERIALIZED (
    SELECT i.event_id, i.received_at
    FROM vouchers.webhook_event AS i
    WHERE i.received_at < now() - interval '90 days' AND i.outcome <> 'mismatch'
      AND i.received_at >= coalesce(%(after)s::timestamptz, '-infinity')
    ORDER BY i.received_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
taken_out AS (
    DELETE FROM vouchers.webhook_event AS i USING old AS d WHERE i.event_id = d.event_id
)
SELECT count(*), max(d.received_at) FROM old AS d

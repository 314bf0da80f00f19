-- The same for webhook events that are older than any repetition by the payment processor: the purchase's own state decides
-- about such a copy. An event that needs a person stays.
WITH old AS MATERIALIZED (
    SELECT i.event_id, i.received_at
    FROM vouchers.webhook_event AS i
    WHERE i.received_at < now() - interval '90 days' AND i.outcome <> 'mismatch'
      AND i.received_at >= coalesce(%(after)s::timestamptz, '-infinity')
    ORDER BY i.received_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
deleted AS (
    DELETE FROM vouchers.webhook_event AS i USING old AS d WHERE i.event_id = d.event_id
)
SELECT count(*) AS number, max(d.received_at) AS last FROM old AS d

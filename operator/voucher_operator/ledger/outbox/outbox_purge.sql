-- Deletes events that were published long ago, the oldest first; returns how many and the time of the last. Continues at
-- `after`, so that no run reads the same deleted rows twice. An event that is not published stays. verify_outbox.sql
-- expects the events of younger purchases only.
WITH old AS MATERIALIZED (
    SELECT o.seq, o.published_at
    FROM vouchers.outbox AS o
    WHERE o.published_at < now() - interval '30 days'
      AND o.published_at >= coalesce(%(after)s::timestamptz, '-infinity')
    ORDER BY o.published_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
deleted AS (
    DELETE FROM vouchers.outbox AS o USING old AS d WHERE o.seq = d.seq
)
SELECT count(*) AS number, max(d.published_at) AS last FROM old AS d

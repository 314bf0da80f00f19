-- Takes out events that were published long ago, the longest ago first, and says how many and up to when; goes on from
-- `after`, so that no pass walks twice over what it has taken out. What waits stays for as long as it waits.
-- verify_outbox.sql asks for the events of younger purchases alone.
WITH old AS MATERIALIZED (
    SELECT o.seq, o.published_at
    FROM vouchers.outbox AS o
    WHERE o.published_at < now() - interval '30 days'
      AND o.published_at >= coalesce(%(after)s::timestamptz, '-infinity')
    ORDER BY o.published_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
taken_out AS (
    DELETE FROM vouchers.outbox AS o USING old AS d WHERE o.seq = d.seq
)
SELECT count(*), max(d.published_at) FROM old AS d

-- Takes out events that were published long ago, and what the payment processor told longer ago than it ever repeats
-- anything: the purchase's own state answers such a copy then. What waits, or waits for a human, stays for as long as it
-- waits. verify_outbox.sql asks for the events of younger purchases alone.
WITH published AS (
    SELECT o.seq
    FROM vouchers.outbox AS o
    WHERE o.published_at < now() - interval '30 days'
    ORDER BY o.seq
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
told AS (
    SELECT i.event_id
    FROM vouchers.inbox AS i
    WHERE i.received_at < now() - interval '90 days' AND i.outcome <> 'mismatch'
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
no_event AS (
    DELETE FROM vouchers.outbox AS o USING published AS p WHERE o.seq = p.seq
)
DELETE FROM vouchers.inbox AS i USING told AS t WHERE i.event_id = t.event_id

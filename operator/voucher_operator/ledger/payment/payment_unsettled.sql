-- Payments that need a person, by kind; `verify` lists the same (verify_webhook_events.sql, verify_payments.sql).
SELECT 'mismatch' AS kind, count(*) AS number FROM vouchers.webhook_event AS i WHERE i.outcome = 'mismatch'
UNION ALL
SELECT 'dispute', count(*)
FROM vouchers.dispute AS d
WHERE d.settled_at IS NULL AND d.status NOT IN ('won', 'lost', 'warning_closed', 'prevented')
UNION ALL
SELECT k.kind, k.number
FROM (
    SELECT count(*) FILTER (WHERE y.outstanding_minor <> y.settled_minor) AS outstanding,
           count(*) FILTER (WHERE y.refunded_at IS NOT NULL AND NOT y.refunded
                            AND coalesce(y.refunded_minor < y.refund_settled_minor, true)) AS refund
    FROM vouchers.payment AS y
    WHERE y.outstanding_minor <> y.settled_minor
       OR y.refunded_at IS NOT NULL AND NOT y.refunded AND coalesce(y.refunded_minor < y.refund_settled_minor, true)
) AS u
CROSS JOIN LATERAL (VALUES ('outstanding', u.outstanding), ('refund', u.refund)) AS k (kind, number)

-- Records a dispute, or its new status. Events arrive in any order: the later one by the processor's time counts, and of
-- two of the same second the one that ends the dispute.
INSERT INTO vouchers.dispute AS d (
    dispute_id, session_id, payment_intent, charge_id, amount_minor, status, reason, event_at
)
VALUES (
    %(dispute)s, %(session)s, %(intent)s, %(charge)s, %(amount)s, %(status)s, %(reason)s, %(event_at)s
)
ON CONFLICT (dispute_id) DO UPDATE
SET status = excluded.status, amount_minor = excluded.amount_minor, reason = excluded.reason, event_at = excluded.event_at,
    updated_at = clock_timestamp()
WHERE (excluded.event_at, excluded.status IN ('won', 'lost', 'warning_closed', 'prevented'))
      >= (d.event_at, d.status IN ('won', 'lost', 'warning_closed', 'prevented'))

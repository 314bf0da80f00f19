-- Records what is reported about a payment, under the purchase's lock. A known value stays where none is reported. Of two responses of the processor the later one counts, and may lower the refunded
-- amount; an event without a time of its own (seen_at NULL) has the least amount that was refunded.
INSERT INTO vouchers.payment AS y (
    session_id, order_id, payment_intent, charge_id, invoice_id, subscription_id, amount_minor, refunded_minor, refunded,
    seen_at, paid_at, refunded_at
)
SELECT %(session)s, %(order)s::uuid, %(intent)s, %(charge)s, %(invoice)s, %(subscription)s, %(amount)s::bigint,
       coalesce(%(refunded_minor)s::bigint, 0), %(refunded)s::boolean, %(seen_at)s::timestamptz,
       CASE WHEN %(paid)s::boolean THEN clock_timestamp() END, CASE WHEN %(refunded)s::boolean THEN clock_timestamp() END
ON CONFLICT (session_id) DO UPDATE
SET payment_intent = coalesce(y.payment_intent, excluded.payment_intent),
    charge_id = coalesce(excluded.charge_id, y.charge_id),
    invoice_id = coalesce(y.invoice_id, excluded.invoice_id),
    subscription_id = coalesce(y.subscription_id, excluded.subscription_id),
    amount_minor = coalesce(y.amount_minor, excluded.amount_minor),
    refunded_minor = CASE WHEN excluded.seen_at < y.seen_at THEN y.refunded_minor
                          WHEN excluded.seen_at IS NULL THEN greatest(y.refunded_minor, excluded.refunded_minor)
                          ELSE excluded.refunded_minor END,
    refunded = CASE WHEN excluded.seen_at < y.seen_at THEN y.refunded
                    WHEN excluded.seen_at IS NULL THEN y.refunded OR excluded.refunded
                    ELSE excluded.refunded END,
    refunded_at = CASE WHEN excluded.seen_at < y.seen_at THEN y.refunded_at
                       ELSE coalesce(y.refunded_at, excluded.refunded_at) END,
    refund_settled_minor = CASE WHEN excluded.refunded AND (excluded.seen_at < y.seen_at) IS NOT TRUE THEN NULL
                                ELSE y.refund_settled_minor END,
    seen_at = greatest(y.seen_at, excluded.seen_at),
    paid_at = coalesce(y.paid_at, excluded.paid_at),
    updated_at = clock_timestamp()

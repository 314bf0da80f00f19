-- No payment has more refunded than was paid. One that was refunded in full still is, does not pay for an order, and needs
-- no person. (Nothing is known of a payment about which the processor was not asked.) Exactly what is outstanding is settled.
-- No dispute needs an answer, and a lost one has ended its order (before that was so, a person decided). A person records
-- what was settled elsewhere: each cause by itself, because one of them may come again.
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE
           WHEN y.refunded_minor > y.amount_minor
               THEN format('payment %s of session %s was of %s minor units, of which %s were refunded',
                           coalesce(y.payment_intent, 'unknown'), y.session_id, y.amount_minor, y.refunded_minor)
           WHEN u.refund_failed
               THEN format('payment %s of session %s was refunded in full, and a refund has failed since: of %s minor units '
                           '%s are refunded; give %s back in another way', coalesce(y.payment_intent, 'unknown'),
                           y.session_id, coalesce(y.amount_minor::text, 'unknown'), y.refunded_minor,
                           coalesce((coalesce(y.refund_settled_minor, y.amount_minor) - y.refunded_minor)::text, 'the rest'))
           WHEN p.session_id = y.session_id AND p.state = 'refunded' AND NOT y.refunded AND y.seen_at IS NOT NULL
                AND u.is_open
               THEN format('is refunded, but of its payment %s (session %s) only %s of %s minor units are',
                           coalesce(y.payment_intent, 'unknown'), y.session_id, y.refunded_minor,
                           coalesce(y.amount_minor::text, 'unknown'))
           WHEN p.session_id = y.session_id AND p.state IN ('pending', 'awaiting_payment', 'completed') AND y.refunded
               THEN format('is %s, but its payment %s (session %s) is refunded in full', p.state,
                           coalesce(y.payment_intent, 'unknown'), y.session_id)
           ELSE format('event %s is a mismatch, but its payment %s (session %s) is refunded in full: set its outcome to '
                       'no_change', m.event_id, coalesce(y.payment_intent, 'unknown'), y.session_id)
       END AS detail
FROM vouchers.payment AS y
LEFT JOIN vouchers.purchase AS p ON p.order_id = y.order_id
LEFT JOIN vouchers.webhook_event AS m ON m.order_id = y.order_id::text AND m.session_id = y.session_id AND m.outcome = 'mismatch'
-- What was refunded has become less since a person has settled the rest, or nobody has.
CROSS JOIN LATERAL (SELECT coalesce(y.refunded_minor < y.refund_settled_minor, true) AS is_open) AS i
CROSS JOIN LATERAL (
    SELECT i.is_open, i.is_open AND y.refunded_at IS NOT NULL AND NOT y.refunded AS refund_failed
) AS u
WHERE y.refunded_minor > y.amount_minor
   OR u.refund_failed
   OR p.session_id = y.session_id AND p.state = 'refunded' AND NOT y.refunded AND y.seen_at IS NOT NULL
      AND u.is_open
   OR p.session_id = y.session_id AND p.state IN ('pending', 'awaiting_payment', 'completed') AND y.refunded
   OR y.refunded AND m.event_id IS NOT NULL
UNION ALL
SELECT NULL, p.customer_id, p.key,
       format(CASE WHEN y.outstanding_minor > y.settled_minor
                   THEN '%s minor units of payment %s (session %s) are outstanding, and the order is %s: collect them or '
                        'write them off'
                   ELSE '%s minor units of payment %s (session %s) were settled and are no longer outstanding, and the '
                        'order is %s: pay back what of them was collected' END,
              abs(y.outstanding_minor - y.settled_minor), coalesce(y.payment_intent, 'unknown'), y.session_id,
              coalesce(p.state, 'missing'))
FROM vouchers.payment AS y
LEFT JOIN vouchers.purchase AS p ON p.order_id = y.order_id
WHERE y.outstanding_minor <> y.settled_minor
UNION ALL
SELECT NULL, p.customer_id, p.key,
       CASE WHEN d.status = 'lost'
            THEN format('dispute %s of payment %s is lost (%s minor units): decide what becomes of the order, which is %s',
                        d.dispute_id, coalesce(d.payment_intent, 'unknown'), coalesce(d.amount_minor::text, 'unknown'),
                        coalesce(p.state, 'missing'))
            ELSE format('dispute %s of payment %s is %s (%s minor units): answer it at Stripe', d.dispute_id,
                        coalesce(d.payment_intent, 'unknown'), d.status, coalesce(d.amount_minor::text, 'unknown')) END
FROM vouchers.dispute AS d
JOIN vouchers.payment AS y ON y.session_id = d.session_id
LEFT JOIN vouchers.purchase AS p ON p.order_id = y.order_id
-- Only the first lost dispute of a payment is charged back.
CROSS JOIN LATERAL (
    SELECT count(*) AS others
    FROM vouchers.dispute AS o
    WHERE o.session_id = d.session_id AND o.dispute_id <> d.dispute_id AND o.status = 'lost'
) AS o
WHERE d.settled_at IS NULL AND d.status NOT IN ('won', 'warning_closed', 'prevented')
  AND NOT (d.status = 'lost' AND (p.state IN ('refunded', 'cancelled', 'rolled_back') OR p.session_id <> y.session_id
                                  OR p.state = 'charged_back' AND o.others = 0))
ORDER BY key, detail

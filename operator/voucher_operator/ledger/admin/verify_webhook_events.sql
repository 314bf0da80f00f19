-- No payment needs a person: no amount was paid for which no order has a use. (A full refund of it resolves that.) An event
-- that was applied has a purchase that is no longer open, and one that was stored as unknown, or as another Sovereign's, is
-- not of a purchase that still awaits its payment.
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE WHEN i.outcome = 'mismatch'
            THEN format('event %s (%s) says that order %s was paid%s, which is %s with %s minor units due: check it, and '
                        'refund what was not due', i.event_id, i.type, coalesce(i.order_id, 'unknown'),
                        CASE WHEN i.session_id IS NOT NULL
                             THEN format(' by payment %s of session %s', coalesce(y.payment_intent, 'unknown'),
                                         i.session_id) END,
                        p.state, p.due_minor)
            WHEN i.outcome = 'applied'
            THEN format('event %s (%s) was applied, but the purchase is %s', i.event_id, i.type,
                        coalesce(p.state, 'missing'))
            ELSE format('event %s (%s) was stored as %s, but its purchase is %s: is the Sovereign''s name right?',
                        i.event_id, i.type, i.outcome, p.state) END AS detail
FROM vouchers.webhook_event AS i
LEFT JOIN vouchers.purchase AS p ON p.order_id::text = i.order_id
LEFT JOIN vouchers.payment AS y ON y.session_id = i.session_id
WHERE i.outcome = 'mismatch'
   OR i.outcome = 'applied' AND (p.key IS NULL OR p.state IN ('pending', 'awaiting_payment'))
   OR i.outcome IN ('foreign', 'unknown') AND p.state IN ('pending', 'awaiting_payment')
ORDER BY i.received_at, i.event_id

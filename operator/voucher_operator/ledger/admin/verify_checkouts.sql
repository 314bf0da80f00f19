-- The payment processor was asked in time. No purchase awaits its payment a day after its checkout ended, unless the
-- payment is being processed (for a month at most), and no subscription of a cancelled, refunded or charged back purchase
-- continues.
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE WHEN p.state = 'awaiting_payment'
            THEN format('awaits its payment and holds %s minor units, though its checkout ended over a day ago: can Stripe be '
                        'asked for session %s?', p.held_minor, p.session_id)
            ELSE format('is %s for over a day, and its subscription may go on: can Stripe be asked to end those of '
                        'customer %s?', p.state, coalesce(p.stripe_customer_id, 'unknown')) END AS detail
FROM vouchers.purchase AS p
CROSS JOIN (SELECT clock_timestamp() AS instant) AS m
WHERE p.state = 'awaiting_payment' AND p.session_expires_at < m.instant - interval '1 day'
      AND (p.session_expires_at < m.instant - interval '30 days' OR NOT EXISTS (
          SELECT FROM vouchers.webhook_event AS i WHERE i.session_id = p.session_id AND i.outcome = 'no_change'
      ))
   OR p.state IN ('cancelled', 'refunded', 'charged_back') AND p.look_at IS NOT NULL AND p.settled_at < m.instant - interval '1 day'
ORDER BY p.key

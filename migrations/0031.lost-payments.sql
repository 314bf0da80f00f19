-- Payments that are lost after the order was completed: a dispute that the cardholder wins. And refunds that fail after the
-- order was reversed. In both cases credit is taken back as far as it is not spent; the rest is outstanding.
-- depends: 0030.attempts

-- A new state: the payment of a completed order was lost. A version before this one leaves such purchases to this version.
ALTER TABLE vouchers.purchase
    DROP CONSTRAINT IF EXISTS purchase_state_check,
    ADD CONSTRAINT purchase_state_check CHECK (
        state IN ('pending', 'awaiting_payment', 'completed', 'cancelled', 'rolled_back', 'refunded', 'charged_back')
    ) NOT VALID;

-- `lost_minor`: what was lost by disputes, when the order was charged back. `outstanding_minor`: what credit has not paid of
-- the order or of what was lost, because it was spent. `clawback_entry_id`: the entry that took credit for what was lost.
-- The others are written by a person. `settled_minor`: how much was outstanding when it was collected or written off. If less
-- is outstanding later, the customer gets the difference back. `refund_settled_minor`: how much was refunded when the rest of
-- a failed refund was given back in another way; NULL again when the payment is refunded in full.
ALTER TABLE vouchers.payment
    ADD COLUMN IF NOT EXISTS lost_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS outstanding_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS clawback_entry_id uuid,
    ADD COLUMN IF NOT EXISTS settled_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS refund_settled_minor bigint;

-- Whether the event order.placed of a purchase was written, when a payment changed it last. A refunded purchase no longer
-- says it by its state, and its subscription may be one that another writer has inserted.
ALTER TABLE vouchers.purchase ADD COLUMN IF NOT EXISTS order_placed boolean NOT NULL DEFAULT false;

UPDATE vouchers.purchase AS p
SET order_placed = true
WHERE p.state = 'refunded' AND NOT p.order_placed
  AND (p.order_id::text IN (SELECT b.data ->> 'id' FROM vouchers.outbox AS b WHERE b.type = 'order.placed')
       OR EXISTS (SELECT FROM subscriptions AS s
                  WHERE s.id = p.order_id OR s.stripe_subscription_id = p.subscription_id));

-- The status that was last reported to the Redemption by a Kubernetes Event.
ALTER TABLE vouchers.dispute ADD COLUMN IF NOT EXISTS reported_status text;

-- Nobody waits for the Event of a dispute that ended before this version, or that a person has settled.
UPDATE vouchers.dispute
SET reported_status = status
WHERE reported_status IS NULL
  AND (settled_at IS NOT NULL OR status IN ('won', 'lost', 'warning_closed', 'prevented'));

-- What waits for a person: few rows of many.
CREATE INDEX IF NOT EXISTS payment_unsettled ON vouchers.payment (session_id)
    WHERE outstanding_minor <> settled_minor
       OR refunded_at IS NOT NULL AND NOT refunded AND coalesce(refunded_minor < refund_settled_minor, true);

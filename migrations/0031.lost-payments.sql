-- Payments that are lost after the order was completed: a dispute that the cardholder wins. And refunds that fail after the
-- order was reversed. In both cases credit is taken back as far as it is not spent; the rest is outstanding.
-- depends: 0030.attempts

-- A new state: the payment of a completed order was lost. A version before this one leaves such purchases to this version.
ALTER TABLE vouchers.purchase
    DROP CONSTRAINT IF EXISTS purchase_state_check,
    ADD CONSTRAINT purchase_state_check CHECK (
        state IN ('pending', 'awaiting_payment', 'completed', 'cancelled', 'rolled_back', 'refunded', 'charged_back')
    ) NOT VALID;

-- `lost_minor`: what was lost by disputes, when the order was charged back. `outstanding_minor`: what nobody has paid of the
-- order or of what was lost, because the credit was spent. `clawback_entry_id`: the entry that took credit for what was
-- lost. `settled_at` is written by a person who has collected the outstanding amount, has written it off, or has given the
-- money of a failed refund back in another way.
ALTER TABLE vouchers.payment
    ADD COLUMN IF NOT EXISTS lost_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS outstanding_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS clawback_entry_id uuid,
    ADD COLUMN IF NOT EXISTS settled_at timestamptz;

-- The status that was last reported to the Redemption by a Kubernetes Event.
ALTER TABLE vouchers.dispute ADD COLUMN IF NOT EXISTS reported_status text;

-- What waits for a person: few rows of many.
CREATE INDEX IF NOT EXISTS payment_unsettled ON vouchers.payment (session_id)
    WHERE settled_at IS NULL AND (outstanding_minor > 0 OR refunded_at IS NOT NULL AND NOT refunded);

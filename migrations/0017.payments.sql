-- The card payments of orders, their refunds and their disputes. A refund acts on the payment that it identifies, never on
-- the order alone: an order may have been paid twice.
-- depends: 0016.ownership

-- One row for each payment. A checkout session takes one payment, and is known from the beginning, so its id is the key;
-- the others are the payment processor's ids of the same payment, as far as they are known. The payment of a purchase is
-- the one whose session is the purchase's. Amounts in minor units; amount_minor is NULL where another currency was paid.
-- `refunded`: in full. `refunded_at`: since when, and kept when a refund fails afterwards. `paid_at` is NULL while only a
-- refund or a dispute of it is known. `seen_at`: when the processor was asked how much was refunded.
CREATE TABLE IF NOT EXISTS vouchers.payment (
    session_id text PRIMARY KEY,
    order_id uuid NOT NULL,
    payment_intent text UNIQUE,
    charge_id text,
    invoice_id text,
    subscription_id text,
    amount_minor bigint CHECK (amount_minor >= 0),
    refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    refunded boolean NOT NULL DEFAULT false,
    paid_at timestamptz,
    refunded_at timestamptz,
    seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX IF NOT EXISTS payment_order ON vouchers.payment (order_id);

-- One row for each dispute. `status` and `reason` are the processor's values; `event_at` is its time of the event that has
-- them. `settled_at` is written by a person who has decided what a lost dispute means for the order.
CREATE TABLE IF NOT EXISTS vouchers.dispute (
    dispute_id text PRIMARY KEY,
    session_id text NOT NULL REFERENCES vouchers.payment,
    payment_intent text,
    charge_id text,
    amount_minor bigint,
    status text NOT NULL,
    reason text,
    event_at timestamptz NOT NULL,
    settled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

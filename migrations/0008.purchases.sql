-- Purchases, the events to be published, and the webhook events of the payment processor. All of these tables are ours: the
-- orders themselves are rows of the Go service's `orders` and `subscriptions`, whose shape is not changed.
-- depends: 0007.credit-ledger-index

-- One row for each purchase, never deleted; its key is the idempotency key of vouchers.redemption. `lines` is what was
-- bought, priced before anything was consumed. Of the total, held_minor is paid by credit (hold_entry_id; released:
-- release_entry_id) and due_minor by card. `delivered_at` is the settled_at of the end that was delivered: to the
-- Redemption, if it still exists, and for a completed purchase to its Organization.
-- `look_at`: when the payment processor is next asked about a purchase that has ended; NULL when no check is left.
CREATE TABLE IF NOT EXISTS vouchers.purchase (
    key text PRIMARY KEY,
    request_hash text NOT NULL,
    uid text NOT NULL,
    order_id uuid NOT NULL UNIQUE,
    customer_id uuid NOT NULL,
    user_id text NOT NULL,
    tenant_id text NOT NULL,
    email text NOT NULL,
    plan_id text NOT NULL,
    apps jsonb NOT NULL DEFAULT '[]',
    addons jsonb NOT NULL DEFAULT '[]',
    lines jsonb NOT NULL DEFAULT '[]',
    subdomain text NOT NULL,
    total_minor bigint NOT NULL,
    held_minor bigint NOT NULL CHECK (held_minor >= 0),
    due_minor bigint NOT NULL CHECK (due_minor >= 0),
    granted_minor bigint NOT NULL DEFAULT 0,
    state text NOT NULL CHECK (
        state IN ('pending', 'awaiting_payment', 'completed', 'cancelled', 'rolled_back', 'refunded')
    ),
    reason text,
    hold_entry_id uuid,
    release_entry_id uuid,
    stripe_customer_id text,
    session_id text UNIQUE,
    checkout_url text,
    subscription_id text,
    session_expires_at timestamptz,
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline_at timestamptz NOT NULL,
    settled_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    checked_at timestamptz,
    delivered_at timestamptz,
    look_at timestamptz,
    CHECK (held_minor + due_minor = total_minor)
);

CREATE INDEX IF NOT EXISTS purchase_pending ON vouchers.purchase (placed_at) WHERE state = 'pending';

CREATE INDEX IF NOT EXISTS purchase_awaiting ON vouchers.purchase (greatest(checked_at, placed_at))
    WHERE state = 'awaiting_payment';

CREATE INDEX IF NOT EXISTS purchase_undelivered ON vouchers.purchase (greatest(checked_at, placed_at))
    WHERE state NOT IN ('pending', 'awaiting_payment') AND delivered_at IS DISTINCT FROM settled_at;

CREATE INDEX IF NOT EXISTS purchase_look ON vouchers.purchase (look_at) WHERE look_at IS NOT NULL;

-- Events, each written in the transaction that makes it true. `seq` orders them within a tenant.
CREATE TABLE IF NOT EXISTS vouchers.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    type text NOT NULL,
    tenant_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    data jsonb NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    published_at timestamptz
);

CREATE INDEX IF NOT EXISTS outbox_waiting ON vouchers.outbox (seq) WHERE published_at IS NULL;

-- The payment processor's events, unchanged, each with its outcome.
CREATE TABLE IF NOT EXISTS vouchers.inbox (
    event_id text PRIMARY KEY,
    type text NOT NULL,
    raw bytea NOT NULL,
    session_id text,
    order_id text,
    outcome text NOT NULL CHECK (
        outcome IN ('applied', 'duplicate', 'no_change', 'unknown', 'foreign', 'mismatch')
    ),
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Read while the customer is locked: the events of an order that was rolled back or is refunded.
CREATE INDEX IF NOT EXISTS inbox_order ON vouchers.inbox (order_id) WHERE order_id IS NOT NULL;

-- A key that bought without a code is used up, too: 'placed'. Existing rows are not checked.
ALTER TABLE vouchers.redemption
    DROP CONSTRAINT IF EXISTS redemption_outcome_check,
    ADD CONSTRAINT redemption_outcome_check CHECK (outcome IN ('redeemed', 'refused', 'undone', 'placed')) NOT VALID;

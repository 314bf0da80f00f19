-- The Go billing service's tables, in its own shape, where they are absent. Tables that exist are not changed.
-- Its statements are a contract: later files add to these tables (0003, 0004); never change this file.

CREATE TABLE IF NOT EXISTS customers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL UNIQUE,
    tenant_id text NOT NULL,
    stripe_customer_id text UNIQUE,
    email text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS subscriptions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES customers (id),
    tenant_id text NOT NULL,
    stripe_subscription_id text UNIQUE,
    plan_id text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    current_period_start timestamptz,
    current_period_end timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES customers (id),
    tenant_id text NOT NULL,
    plan_id text NOT NULL,
    apps jsonb NOT NULL DEFAULT '[]',
    addons jsonb NOT NULL DEFAULT '[]',
    amount_omr integer NOT NULL,
    amount_baisa bigint NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'pending',
    stripe_session_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    promo_code text
);

CREATE TABLE IF NOT EXISTS promo_codes (
    code text PRIMARY KEY,
    credit_omr integer NOT NULL,
    description text NOT NULL DEFAULT '',
    active boolean NOT NULL DEFAULT true,
    max_redemptions integer NOT NULL DEFAULT 0,
    times_redeemed integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE TABLE IF NOT EXISTS promo_redemptions (
    customer_id uuid NOT NULL REFERENCES customers (id),
    code text NOT NULL REFERENCES promo_codes (code),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer_id, code)
);

CREATE TABLE IF NOT EXISTS credit_ledger (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES customers (id),
    amount_omr integer NOT NULL,
    reason text NOT NULL,
    order_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL DEFAULT 'active'
);

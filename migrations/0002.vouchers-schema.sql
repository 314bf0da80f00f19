-- What the Go service does not know: the ledger's identity, the terms that Git declares, the requests that were decided.
-- No foreign key refers from here to its tables: no object of ours may make one of its statements fail.
-- `migrate` sets vouchers.currency and vouchers.minor_digits for the session; the first run stores them permanently.
-- depends: 0001.billing-tables

CREATE SCHEMA IF NOT EXISTS vouchers;

CREATE TABLE IF NOT EXISTS vouchers.sovereign (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    minor_digits smallint NOT NULL CHECK (minor_digits BETWEEN 0 AND 4)
);

INSERT INTO vouchers.sovereign (currency, minor_digits)
VALUES (current_setting('vouchers.currency'), current_setting('vouchers.minor_digits')::smallint)
ON CONFLICT (singleton) DO NOTHING;

-- One row for each code that a Voucher owns or owned; revoked_at is NULL while it is live.
CREATE TABLE IF NOT EXISTS vouchers.terms (
    code text PRIMARY KEY,
    owner_uid text NOT NULL UNIQUE,
    owner_namespace text NOT NULL,
    owner_name text NOT NULL,
    owner_created_at timestamptz NOT NULL,
    generation bigint NOT NULL,
    from_secret boolean NOT NULL DEFAULT false,
    credit_minor bigint NOT NULL,
    description text NOT NULL DEFAULT '',
    active boolean NOT NULL DEFAULT true,
    max_redemptions integer NOT NULL DEFAULT 0,
    valid_from timestamptz,
    valid_until timestamptz,
    revoked_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- One row for each idempotency key: the request (hash), its object (uid), and the result.
CREATE TABLE IF NOT EXISTS vouchers.redemption (
    key text PRIMARY KEY,
    request_hash text NOT NULL,
    uid text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('redeemed', 'refused', 'undone')),
    reason text,
    code text,
    customer_id uuid,
    user_id text,
    credit_minor bigint NOT NULL DEFAULT 0,
    grant_entry_id uuid,
    reversal_entry_id uuid,
    decided_at timestamptz NOT NULL DEFAULT now(),
    undone_at timestamptz
);

-- A code's normal form. ASCII only (COLLATE "C"), so that no locale changes what an index holds.
CREATE OR REPLACE FUNCTION vouchers.normal_code(code text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN upper(btrim(code, E' \t\n\r\f\x0b') COLLATE "C");

-- Minor units in one major unit: 1000 for OMR.
CREATE OR REPLACE FUNCTION vouchers.scale() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (SELECT (10::numeric ^ s.minor_digits)::bigint FROM vouchers.sovereign AS s);

-- Minor units in major units, rounded down: 25500 is 25, -12345 is -13.
CREATE OR REPLACE FUNCTION vouchers.whole(minor bigint) RETURNS integer
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN floor(minor::numeric / vouchers.scale())::integer;

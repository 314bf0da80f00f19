-- Minor units and counters beside the columns in major units. NULL credit_minor means "as credit_omr": no row is
-- backfilled. One much-used table in each transaction: the lock is held for one change of the catalog only.
-- depends: 0002.vouchers-schema

-- uses_at_cap: the counter when the cap was last set. A cap set below use is legal, so more redemptions than the cap are
-- wrong only when they are also more than this.
ALTER TABLE promo_codes
    ADD COLUMN IF NOT EXISTS credit_minor bigint,
    ADD COLUMN IF NOT EXISTS granted_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_redeemed_at timestamptz,
    ADD COLUMN IF NOT EXISTS uses_at_cap integer NOT NULL DEFAULT 0;

-- Finds a code by its normal form. On a ledger so large that this takes longer than `migrate` allows, build it by hand
-- first, with CREATE INDEX CONCURRENTLY and this very name.
-- depends: 0005.keep-in-step

CREATE INDEX IF NOT EXISTS promo_codes_normal_code ON promo_codes (vouchers.normal_code(code));

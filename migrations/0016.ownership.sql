-- Who may issue a code: the namespace whose Voucher did so first, also when that Voucher is deleted, until it is released to
-- another one. Both statements lock vouchers.terms for a moment; it has one row a Voucher.
-- depends: 0015.rights

-- The namespace that may issue a revoked code; NULL means that of its last Voucher. Issuing makes it NULL.
ALTER TABLE vouchers.terms ADD COLUMN IF NOT EXISTS released_to text;

-- A code's terms are found in any spelling, whether or not its row of promo_codes is still there.
CREATE INDEX IF NOT EXISTS terms_normal_code ON vouchers.terms (vouchers.normal_code(code));

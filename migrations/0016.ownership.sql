-- Who may issue a code: the namespace whose Voucher issued it first, also after that Voucher is deleted, until it is
-- released to another one. Both statements lock vouchers.terms for a moment; it has one row for each Voucher.
-- depends: 0015.rights

-- The namespace that may issue a revoked code; NULL means that of its last Voucher. Issuing makes it NULL.
ALTER TABLE vouchers.terms ADD COLUMN IF NOT EXISTS released_to text;

-- Finds a code's terms in any spelling, also when its row of promo_codes does not exist any more.
CREATE INDEX IF NOT EXISTS terms_normal_code ON vouchers.terms (vouchers.normal_code(code));

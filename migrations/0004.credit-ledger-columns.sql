-- NULL amount_minor means "as amount_omr says": the ledger may be large, nothing is back-filled.
-- depends: 0003.promo-codes-columns

ALTER TABLE credit_ledger ADD COLUMN IF NOT EXISTS amount_minor bigint;

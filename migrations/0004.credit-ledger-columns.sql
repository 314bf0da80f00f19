-- NULL amount_minor means "as amount_omr": the ledger may be large, no row is backfilled.
-- depends: 0003.promo-codes-columns

ALTER TABLE credit_ledger ADD COLUMN IF NOT EXISTS amount_minor bigint;

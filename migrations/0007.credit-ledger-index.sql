-- A customer's balance and entries. On a ledger so large that this takes longer than `migrate` allows, build it by hand
-- first, with CREATE INDEX CONCURRENTLY and this very name.
-- depends: 0006.promo-codes-index

CREATE INDEX IF NOT EXISTS credit_ledger_customer_id ON credit_ledger (customer_id);

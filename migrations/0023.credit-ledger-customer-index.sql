-- credit_ledger_newest begins with the same column: an entry is written into one index by customer, as before.
-- depends: 0022.credit-ledger-newest-index

DROP INDEX IF EXISTS credit_ledger_customer_id;

-- A customer's newest entries, however many there are; replaces credit_ledger_customer_id (0023). On a ledger so
-- large that this takes longer than `migrate` allows, build it by hand first, with CREATE INDEX CONCURRENTLY and this very
-- name.
-- depends: 0021.inbox-received-index

CREATE INDEX IF NOT EXISTS credit_ledger_newest ON credit_ledger (customer_id, created_at);

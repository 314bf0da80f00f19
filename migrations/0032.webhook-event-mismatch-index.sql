-- Payments that need a person: counted every half minute, for an alert that ends when the last one is settled. On a ledger so
-- large that this takes longer than `migrate` allows, build it by hand first, with CREATE INDEX CONCURRENTLY and this very
-- name.
-- depends: 0031.lost-payments

CREATE INDEX IF NOT EXISTS webhook_event_mismatch ON vouchers.webhook_event (received_at) WHERE outcome = 'mismatch';

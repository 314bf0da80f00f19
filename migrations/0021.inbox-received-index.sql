-- Finds webhook events that were received long ago. On a ledger so large that this takes longer than `migrate` allows,
-- build it by hand first, with CREATE INDEX CONCURRENTLY and this very name.
-- depends: 0020.outbox-published-index

CREATE INDEX IF NOT EXISTS inbox_received ON vouchers.inbox (received_at);

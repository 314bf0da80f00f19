-- Finds events that were published long ago. A redemption does not write to it: its event is not published yet. On a ledger
-- so large that this takes longer than `migrate` allows, build it by hand first, with CREATE INDEX CONCURRENTLY and this
-- very name.
-- depends: 0019.purchase-undelivered-index

CREATE INDEX IF NOT EXISTS outbox_published ON vouchers.outbox (published_at) WHERE published_at IS NOT NULL;

-- Ended purchases that are still to be delivered, by namespace: an operator reads those of its own namespaces alone.
-- The second column is when a purchase was last checked; one that has ended since then comes first. Delivered ones are not
-- in it. On a ledger so large that this takes longer than `migrate` allows, build it by hand first, with CREATE INDEX
-- CONCURRENTLY and this very name.
-- depends: 0017.payments

CREATE INDEX IF NOT EXISTS purchase_owed ON vouchers.purchase (
    split_part(key, '/', 1),
    (CASE WHEN greatest(checked_at, placed_at) <= settled_at THEN '-infinity'::timestamptz
          ELSE greatest(checked_at, placed_at) END)
) WHERE state NOT IN ('pending', 'awaiting_payment') AND delivered_at IS DISTINCT FROM settled_at;

-- Ended purchases that are still to be delivered, by the namespace of their Redemption: an operator reads those of its own
-- namespaces alone. The second column is when a purchase was last checked; one that has ended since then comes first.
-- Delivered ones are not in it. On a ledger so large that this takes longer than `migrate` allows, build it by hand first,
-- with CREATE INDEX CONCURRENTLY and this very name. The index purchase_owed (0018) stays for the version before this one.
-- The first column is the body of vouchers.key_namespace: a call would need a right that the version before takes away when it
-- is installed again.
-- depends: 0028.key-namespace

CREATE INDEX IF NOT EXISTS purchase_undelivered_namespace ON vouchers.purchase (
    (CASE WHEN starts_with(key, 'http:') THEN NULL ELSE split_part(key, '/', 1) END),
    (CASE WHEN greatest(checked_at, placed_at) <= settled_at THEN '-infinity'::timestamptz
          ELSE greatest(checked_at, placed_at) END)
) WHERE state NOT IN ('pending', 'awaiting_payment') AND delivered_at IS DISTINCT FROM settled_at;

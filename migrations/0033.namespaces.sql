-- Which operator serves which namespace. So the operators and `verify` know the Vouchers that nobody processes any more.
-- And which codes were revoked because their Voucher was absent, which is also the case while a backup is restored.
-- depends: 0032.webhook-event-mismatch-index

-- One row for each namespace that was ever served. `operator` is a release in one cluster. `dropped_at` is set when its operator no longer serves it, `cleared_at`
-- when it then has no Voucher with a code and none with the operator's finalizer.
CREATE TABLE IF NOT EXISTS vouchers.served_namespace (
    namespace text PRIMARY KEY,
    operator text NOT NULL,
    served_at timestamptz NOT NULL,
    dropped_at timestamptz,
    cleared_at timestamptz
);

-- Equal to revoked_at if the code was revoked because no list had its Voucher; otherwise it says nothing.
ALTER TABLE vouchers.terms ADD COLUMN IF NOT EXISTS absent_at timestamptz;

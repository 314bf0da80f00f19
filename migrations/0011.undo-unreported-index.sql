-- Redemptions that another writer has undone and whose resource does not have this in its status yet. Nearly always empty.
-- depends: 0010.redemption-customer-index

CREATE INDEX IF NOT EXISTS redemption_undo_unreported ON vouchers.redemption (coalesce(undo_checked_at, undone_at))
    WHERE outcome = 'undone' AND undone_by IS NOT NULL AND undo_reported_at IS NULL;

-- The Redemptions of these requests have the undo in their status, or are deleted.
UPDATE vouchers.redemption AS d
SET undo_reported_at = clock_timestamp()
WHERE d.key = ANY (%(keys)s::text[]) AND d.outcome = 'undone' AND d.undo_reported_at IS NULL

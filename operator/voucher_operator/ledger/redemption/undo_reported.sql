-- The Redemptions of these requests say that they are undone, or are gone.
UPDATE vouchers.redemption AS d
SET undo_reported_at = clock_timestamp()
WHERE d.key = ANY (%(keys)s::text[]) AND d.outcome = 'undone' AND d.undo_reported_at IS NULL

-- Takes requests of these namespaces whose redemption another writer has undone, and whose Redemption may not have that in
-- its status yet. Each is due at once, and again after every pause, the longest unchecked first; it counts as checked then.
-- So one that stays does not delay the others.
WITH due AS MATERIALIZED (
    SELECT d.key
    FROM vouchers.redemption AS d
    WHERE d.outcome = 'undone' AND d.undone_by IS NOT NULL AND d.undo_reported_at IS NULL
      AND vouchers.key_namespace(d.key) = ANY (%(namespaces)s::text[])
      AND (d.undo_checked_at IS NULL
           OR d.undo_checked_at < statement_timestamp() - make_interval(secs => %(seconds)s))
    ORDER BY coalesce(d.undo_checked_at, d.undone_at)
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE vouchers.redemption AS d
SET undo_checked_at = clock_timestamp()
FROM due AS u
WHERE d.key = u.key
RETURNING d.key, d.undone_at

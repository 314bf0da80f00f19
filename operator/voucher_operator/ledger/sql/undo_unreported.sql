-- Requests of these namespaces whose redemption another writer has undone, and whose Redemption may not say so yet.
SELECT d.key
FROM vouchers.redemption AS d
WHERE d.outcome = 'undone' AND d.undone_by IS NOT NULL AND d.undo_reported_at IS NULL
  AND split_part(d.key, '/', 1) = ANY (%(namespaces)s::text[])
ORDER BY d.undone_at
LIMIT %(limit)s

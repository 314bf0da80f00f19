-- The owners of live vouchers, a page of them: those after a uid, in the order of uids.
SELECT t.owner_uid
FROM vouchers.terms AS t
WHERE t.revoked_at IS NULL AND t.owner_uid > %(after)s
ORDER BY t.owner_uid
LIMIT %(limit)s

SELECT t.owner_uid AS uid, t.owner_namespace AS namespace, t.owner_name AS name, t.code
FROM vouchers.terms AS t
WHERE t.revoked_at IS NULL
ORDER BY 2, 3, 1

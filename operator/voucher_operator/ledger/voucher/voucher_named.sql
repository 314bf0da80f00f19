-- The owners of live vouchers that have a name: in a restored cluster an earlier object of that name.
SELECT t.owner_uid AS uid, t.owner_namespace AS namespace, t.owner_name AS name, t.code
FROM vouchers.terms AS t
WHERE t.revoked_at IS NULL AND t.owner_namespace = %(namespace)s AND t.owner_name = %(name)s
ORDER BY 1

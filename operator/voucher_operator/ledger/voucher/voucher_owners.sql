SELECT t.owner_uid, t.owner_namespace, t.owner_name FROM vouchers.terms AS t WHERE t.revoked_at IS NULL ORDER BY 2, 3, 1

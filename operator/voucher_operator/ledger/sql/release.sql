-- Lets another namespace issue the codes of deleted Vouchers of one name. What is issued again meanwhile stays as it is.
UPDATE vouchers.terms AS t
SET released_to = %(to)s
WHERE t.owner_namespace = %(namespace)s AND t.owner_name = %(name)s AND t.revoked_at IS NOT NULL

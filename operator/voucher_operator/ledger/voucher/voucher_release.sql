-- Allows another namespace to issue the code of the last deleted Voucher of a name; nothing while a live Voucher has that
-- name.
UPDATE vouchers.terms AS t
SET released_to = %(to)s
WHERE t.revoked_at IS NOT NULL
  AND t.code = (
      SELECT l.code
      FROM vouchers.terms AS l
      WHERE l.owner_namespace = %(namespace)s AND l.owner_name = %(name)s
      ORDER BY l.revoked_at IS NOT NULL, l.revoked_at DESC
      LIMIT 1
  )

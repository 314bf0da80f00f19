-- Revokes the terms of this Voucher, or of another one on this code, that are stored under another spelling than the one to
-- be written. A row is never deleted; a Voucher's uid is in one row only.
UPDATE vouchers.terms AS t
SET revoked_at = coalesce(t.revoked_at, clock_timestamp()),
    owner_uid = CASE WHEN t.owner_uid = %(uid)s THEN t.owner_uid || ' ' || t.code ELSE t.owner_uid END,
    updated_at = clock_timestamp()
WHERE t.code <> %(code)s
  AND (t.owner_uid = %(uid)s
       OR (t.revoked_at IS NULL AND vouchers.normal_code(t.code) = vouchers.normal_code(%(code)s)))

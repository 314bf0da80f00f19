-- Codes that come from a Secret, of live and of revoked Vouchers, and the Voucher to show in their place.
SELECT t.code, t.owner_namespace || '/' || t.owner_name AS owner
FROM vouchers.terms AS t
WHERE t.from_secret

-- The earlier result of a request, if it was this request: a grant is bound to key and hash, a refusal to key and uid.
-- Judges nothing and locks nothing.
SELECT d.outcome, d.reason, d.code, d.credit_minor, d.decided_at, true AS replayed
FROM vouchers.redemption AS d
WHERE d.key = %(key)s
  AND CASE WHEN d.outcome = 'refused' THEN d.uid = %(uid)s ELSE d.request_hash = %(hash)s END

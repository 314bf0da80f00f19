-- A live Voucher is in a namespace that an operator serves. It is not when its operator has dropped the namespace, or when no
-- operator has reported it for a day, although operators report others. Without any report nothing is known.
SELECT t.code, NULL::uuid AS customer_id, NULL::text AS key,
       format('voucher %s/%s is live, but no operator serves its namespace (%s): serve it again, or delete the voucher',
              t.owner_namespace, t.owner_name,
              CASE WHEN s.dropped_at IS NOT NULL
                   THEN 'dropped on ' || to_char(s.dropped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                   ELSE 'not reported for a day' END) AS detail
FROM vouchers.terms AS t
LEFT JOIN vouchers.served_namespace AS s ON s.namespace = t.owner_namespace
WHERE t.revoked_at IS NULL
  AND (s.dropped_at IS NOT NULL
       OR coalesce(s.served_at, '-infinity') < now() - interval '1 day'
          AND EXISTS (SELECT FROM vouchers.served_namespace AS o WHERE o.served_at >= now() - interval '1 day'))
ORDER BY t.owner_namespace, t.owner_name

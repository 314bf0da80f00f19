-- Namespaces that an operator must handle although it does not serve them: those that it has dropped, until they are
-- cleared, and those with live Vouchers that no operator has reported within a day (an operator reports every few minutes,
-- the version before not at all). `vouchers` is the number of live ones.
WITH live AS (
    SELECT t.owner_namespace AS namespace, count(*)::integer AS vouchers
    FROM vouchers.terms AS t
    WHERE t.revoked_at IS NULL
    GROUP BY t.owner_namespace
)
SELECT namespace, coalesce(l.vouchers, 0) AS vouchers,
       coalesce(s.dropped_at IS NOT NULL AND s.operator = %(operator)s, false) AS dropped,
       CASE WHEN s.operator = %(operator)s THEN s.dropped_at END AS dropped_at
FROM live AS l
FULL JOIN vouchers.served_namespace AS s USING (namespace)
WHERE namespace <> ALL (%(namespaces)s::text[])
  AND CASE
          WHEN s.dropped_at IS NOT NULL AND s.operator = %(operator)s THEN s.cleared_at IS NULL OR l.vouchers > 0
          ELSE l.vouchers > 0 AND coalesce(s.dropped_at, s.served_at, '-infinity') < now() - interval '1 day'
      END
ORDER BY namespace

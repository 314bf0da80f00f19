-- A request that the operator has undone has an entry that negates its grant. (The Go service's own undo deletes both.)
SELECT d.code, d.customer_id, d.key,
       CASE WHEN g.id IS NULL THEN 'its reversal stands without its grant'
            WHEN v.id IS NULL THEN 'its grant stands without a reversal'
            ELSE 'its reversal does not negate its grant' END AS detail
FROM vouchers.redemption AS d
LEFT JOIN credit_ledger AS g ON g.id = d.grant_entry_id
LEFT JOIN credit_ledger AS v ON v.id = d.reversal_entry_id
WHERE d.outcome = 'undone'
  AND (g.id IS NOT NULL OR v.id IS NOT NULL)
  AND (g.id IS NULL OR v.id IS NULL OR v.customer_id <> g.customer_id OR v.reason <> g.reason
       OR coalesce(v.amount_minor, v.amount_omr * (SELECT vouchers.scale()))
          <> -coalesce(g.amount_minor, g.amount_omr * (SELECT vouchers.scale())))
ORDER BY d.key

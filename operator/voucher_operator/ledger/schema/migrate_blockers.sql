-- The sessions that hold a lock on one of the ledger's tables, the longest transaction first. Shown when a migration gives
-- up.
SELECT a.pid, coalesce(nullif(a.application_name, ''), '(no name)') AS application, coalesce(a.state, 'unknown') AS state,
       string_agg(DISTINCT c.relname, ', ') AS tables
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.pid <> pg_backend_pid()
  AND c.relkind = 'r'
  AND c.relname IN ('promo_codes', 'credit_ledger', 'customers', 'promo_redemptions', 'subscriptions', 'orders',
                    'backfill_progress', 'backfill_total')
GROUP BY a.pid, a.application_name, a.state, a.xact_start
ORDER BY a.xact_start

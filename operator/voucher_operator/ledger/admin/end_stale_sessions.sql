-- Ends sessions of replicas that are frozen, or whose node is gone, in the midst of a transaction: they may hold rows
-- that everybody waits for. No limit of their own ends them: a pipeline whose end never came is not idle to PostgreSQL,
-- and version 16 has no limit of a whole transaction. A role may always end the sessions of its own. One that is not
-- gone after half a second is not counted, and found again next time.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid, 500))
FROM pg_stat_activity AS a
WHERE a.datname = current_database()
  AND a.usename = session_user
  AND a.application_name = current_setting('application_name')
  AND a.pid <> pg_backend_pid()
  AND a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)

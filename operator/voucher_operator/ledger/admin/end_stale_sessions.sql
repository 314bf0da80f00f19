-- Ends sessions of replicas that are frozen, or whose node is lost, in the middle of a transaction: they may hold rows that
-- others wait for. No limit of their own ends them: for PostgreSQL a pipeline that was not completed is not idle, and
-- version 16 has no limit for a whole transaction. A role may always end its own sessions. One that has not ended after
-- half a second is not counted, and is found again by the next run.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid, 500))
FROM pg_stat_activity AS a
WHERE a.datname = current_database()
  AND a.usename = session_user
  AND a.application_name = current_setting('application_name')
  AND a.pid <> pg_backend_pid()
  AND a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)

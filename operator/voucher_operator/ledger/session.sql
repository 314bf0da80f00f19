-- The settings that no session takes from the defaults of its database or role, neither the operator's nor those of commands
-- and migrations: the statements, and psycopg's reading of their results, are written for these values. The limits, and what
-- only one kind of session needs, are a parameter (`session.py`). The client's encoding is a parameter of the connection.
-- Read committed: a statement must see what was committed while the one before it waited for a lock.
-- row_security 'off' does not switch policies off: rows that a policy would hide become an error instead of a wrong sum.
-- synchronous_commit: a grant that was acknowledged must survive a crash, also where the database's default is 'off'.
-- Not every version has all of them. The second column says whether the session is read-only: on a standby, and where
-- read-only is the default. The third one says whether the session is shared: then it is this client's for one transaction
-- only, and all is set for this transaction alone. NULL for `shared` asks: where a pooler is between, the process that libpq was
-- connected to, by its id, is not the one that runs this statement. The fourth one differs for each server and each of its starts.
SELECT set_config(s.key, s.value, k.shared), current_setting('transaction_read_only')::boolean AS read_only, k.shared,
       pg_postmaster_start_time()::text AS server
FROM (SELECT coalesce(%(shared)s::boolean, pg_backend_pid() <> %(backend_pid)s) AS shared) AS k, jsonb_each_text(jsonb_build_object(
    'default_transaction_isolation', 'read committed',
    'default_transaction_deferrable', 'off',
    'row_security', 'off',
    'search_path', 'public, pg_temp',
    'synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                               ELSE current_setting('synchronous_commit') END,
    'standard_conforming_strings', 'on',
    'client_min_messages', 'notice',
    'DateStyle', 'ISO',
    'IntervalStyle', 'postgres',
    'TimeZone', 'UTC',
    'bytea_output', 'hex',
    'extra_float_digits', '1',
    'array_nulls', 'on',
    'transform_null_equals', 'off',
    'idle_session_timeout', '0',
    'transaction_timeout', '0'
) || %(settings)s::jsonb) AS s
WHERE current_setting(s.key, true) IS NOT NULL

-- What every session takes from nobody's defaults, the operator's and those of commands and migrations: a database or a role
-- may have others, and the statements, and psycopg's reading of their answers, are written for these. The limits, and what
-- only one kind of session needs, come as a parameter (`session.py`). The client's encoding is part of the connection.
-- Read committed: a statement must see what was committed while the one before it waited for a lock.
-- row_security 'off' does not switch policies off: rows that a policy would hide become an error instead of a wrong sum.
-- synchronous_commit: a grant that was answered must survive a crash.
-- Not every version has all of them. The second column says whether the session may write: not on a standby, and not where
-- somebody has made read only the default.
SELECT set_config(s.key, s.value, false), current_setting('transaction_read_only')::boolean AS read_only
FROM jsonb_each_text(jsonb_build_object(
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

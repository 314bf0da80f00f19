-- The settings that the session of a command does not take from the defaults of its database or role: the statements are
-- written for these values. Read committed: a statement must see what was committed while the one before it waited for a
-- lock. row_security 'off' does not switch policies off: rows that a policy would hide become an error instead of a wrong
-- sum. Not every version has all of them.
SELECT set_config(s.key, s.value, false)
FROM jsonb_each_text(jsonb_build_object(
    'default_transaction_isolation', 'read committed',
    'default_transaction_read_only', 'off',
    'default_transaction_deferrable', 'off',
    'row_security', 'off',
    'search_path', 'public, pg_temp',
    'synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                               ELSE current_setting('synchronous_commit') END,
    'standard_conforming_strings', 'on',
    'client_min_messages', 'notice',
    'DateStyle', 'ISO',
    'TimeZone', 'UTC',
    'idle_session_timeout', '0',
    'transaction_timeout', '0'
) || %(settings)s::jsonb) AS s
WHERE current_setting(s.key, true) IS NOT NULL

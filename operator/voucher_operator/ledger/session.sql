-- The limits of every session, and what keeps the prepared statements' plans the same whatever the tables' size:
-- read committed (a statement must see what was committed while the one before it waited for a lock), one generic plan,
-- by index.
SELECT set_config('lock_timeout', '1s', false),
       set_config('statement_timeout', '8s', false),
       set_config('idle_in_transaction_session_timeout', '5s', false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('search_path', 'public, pg_temp', false),
       set_config('TimeZone', 'UTC', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false),
       -- A grant that was answered must survive a crash, whatever the database's default is.
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                       ELSE current_setting('synchronous_commit') END, false)

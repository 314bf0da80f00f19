-- The limits of every session, and the settings by which the plans of prepared statements do not depend on the tables'
-- size: one generic plan, by index. Read committed: a statement must see what was committed while the one before it waited
-- for a lock.
SELECT set_config('lock_timeout', '1s', false),
       set_config('statement_timeout', '8s', false),
       set_config('idle_in_transaction_session_timeout', '5s', false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('search_path', 'public, pg_temp', false),
       set_config('TimeZone', 'UTC', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false),
       -- A grant that was acknowledged must survive a crash, also where the database's default is 'off'.
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                       ELSE current_setting('synchronous_commit') END, false)

-- The plans that the backfill needs: entries by their primary key, a portion at a time, also for a small part of them.
SELECT set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('jit', 'off', false),
       set_config('search_path', 'public, pg_temp', false)

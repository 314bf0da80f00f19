-- The plans that the summing needs: entries by their primary key, a portion at a time, however few of all they are.
SELECT set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('jit', 'off', false),
       set_config('search_path', 'public, pg_temp', false)

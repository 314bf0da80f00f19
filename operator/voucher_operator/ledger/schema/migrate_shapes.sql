-- The objects of the ledger's tables, one row for each column, index, key, trigger, CHECK or function: kind, name, shape,
-- and a fault that keeps it from working (''). `shapes` compares them with what the migrations create. %(tables)s are the
-- billing service's tables, %(indexes)s the names of our indexes on them: every object with such a name is read, also if it
-- is no index.
WITH of_ledger AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname, format('%%I.%%I', n.nspname, c.relname) AS name
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND (n.nspname = 'vouchers' AND c.relname !~ '^_?yoyo_'
                               OR n.nspname = 'public' AND c.relname = ANY (%(tables)s::text[]))
)
SELECT 'column' AS kind, format('%%s.%%I', t.name, a.attname) AS name,
       format_type(a.atttypid, a.atttypmod)
           || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
           || CASE WHEN a.attidentity <> '' THEN ' identity'
                   WHEN a.attgenerated <> '' THEN ' generated ' || pg_get_expr(d.adbin, d.adrelid)
                   WHEN d.adbin IS NOT NULL THEN ' default ' || pg_get_expr(d.adbin, d.adrelid) ELSE '' END AS shape,
       '' AS fault
FROM of_ledger AS t
JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
-- A CASE is printed on several lines, but a shape is one line.
SELECT 'index', format('%%I.%%I', n.nspname, c.relname),
       coalesce(regexp_replace(pg_get_indexdef(i.indexrelid), '\s+', ' ', 'g'), 'not an index'),
       CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN '' ELSE 'invalid' END
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
WHERE n.nspname = 'public' AND c.relname = ANY (%(indexes)s::text[])
   OR i.indrelid IN (SELECT t.oid FROM of_ledger AS t WHERE t.nspname = 'vouchers')
UNION ALL
SELECT DISTINCT 'key', format('%%s (%%s)', t.name, k.columns), 'unique', ''
FROM of_ledger AS t
JOIN pg_index AS i ON i.indrelid = t.oid
CROSS JOIN LATERAL (
    SELECT string_agg(pg_get_indexdef(i.indexrelid, n, false), ', ' ORDER BY n) AS columns
    FROM generate_series(1, i.indnkeyatts) AS n
) AS k
WHERE t.nspname = 'public' AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indimmediate
UNION ALL
SELECT 'trigger', format('%%s.%%I', t.name, g.tgname), pg_get_triggerdef(g.oid),
       CASE WHEN g.tgenabled IN ('O', 'A') THEN '' ELSE 'disabled' END
FROM of_ledger AS t
JOIN pg_trigger AS g ON g.tgrelid = t.oid AND NOT g.tgisinternal
UNION ALL
SELECT 'check', format('%%s.%%I', t.name, k.conname), regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''), ''
FROM of_ledger AS t
JOIN pg_constraint AS k ON k.conrelid = t.oid AND k.contype = 'c'
UNION ALL
SELECT 'function', format('%%I.%%I(%%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)),
       'returns ' || format_type(p.prorettype, NULL)
           || CASE WHEN p.prosecdef THEN ' security definer set ' || coalesce(array_to_string(p.proconfig, ', '), 'nothing')
                   ELSE '' END, ''
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'vouchers'

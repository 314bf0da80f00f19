-- What keeps the ledger's tables from being plain tables that contain all their rows and accept every insert of ours: kind,
-- table, and the other object. %(tables)s are the billing service's tables, %(columns)s their columns that we know.
WITH of_ledger AS MATERIALIZED (
    SELECT c.*, n.nspname, format('%%I.%%I', n.nspname, c.relname) AS name
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND (n.nspname = 'vouchers' OR n.nspname = 'public' AND c.relname = ANY (%(tables)s::text[]))
)
SELECT 'row_security' AS kind, t.name, '' AS what FROM of_ledger AS t WHERE t.relrowsecurity
UNION ALL
SELECT 'unlogged', t.name, '' FROM of_ledger AS t WHERE t.relpersistence <> 'p'
UNION ALL
SELECT 'child', t.name, i.inhparent::regclass::text FROM of_ledger AS t JOIN pg_inherits AS i ON i.inhrelid = t.oid
UNION ALL
SELECT 'parent', t.name, i.inhrelid::regclass::text FROM of_ledger AS t JOIN pg_inherits AS i ON i.inhparent = t.oid
UNION ALL
SELECT 'rule', t.name, r.rulename::text FROM of_ledger AS t JOIN pg_rewrite AS r ON r.ev_class = t.oid
UNION ALL
SELECT DISTINCT 'foreign_key', t.name, ''
FROM of_ledger AS t
JOIN pg_trigger AS g ON g.tgrelid = t.oid
WHERE g.tgisinternal AND g.tgenabled NOT IN ('O', 'A')
UNION ALL
SELECT 'required', t.name, a.attname::text
FROM of_ledger AS t
JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE t.nspname = 'public' AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
  AND format('%%s.%%I', t.name, a.attname) <> ALL (%(columns)s::text[])
UNION ALL
-- One of our trigger functions, called by a trigger on a table that is not one of the ledger's.
SELECT 'strange_trigger', g.tgrelid::regclass::text, g.tgname::text
FROM pg_trigger AS g
JOIN pg_proc AS p ON p.oid = g.tgfoid
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = 'vouchers' AND g.tgrelid NOT IN (SELECT t.oid FROM of_ledger AS t)
ORDER BY 1, 2, 3

-- Objects of ours in the schema vouchers, the schema itself first, that do not belong to %(owner)s: their owner, and the
-- statement that changes it. Ours are %(tables)s, %(functions)s and yoyo's tables; a column's sequence follows its table.
SELECT f.owner, f.command
FROM (
    SELECT 1 AS rank, n.nspname::text AS name, pg_get_userbyid(n.nspowner)::text AS owner,
           format('ALTER SCHEMA %%I OWNER TO %%I', n.nspname, %(owner)s::text) AS command
    FROM pg_namespace AS n
    WHERE n.nspname = 'vouchers'
    UNION ALL
    SELECT 2, c.relname, pg_get_userbyid(c.relowner),
           format('ALTER TABLE %%I.%%I OWNER TO %%I', n.nspname, c.relname, %(owner)s::text)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'vouchers' AND c.relkind IN ('r', 'v')
      AND (format('%%I.%%I', n.nspname, c.relname) = ANY (%(tables)s::text[]) OR c.relname ~ '^_?yoyo_')
    UNION ALL
    SELECT 3, p.proname, pg_get_userbyid(p.proowner),
           format('ALTER ROUTINE %%I.%%I(%%s) OWNER TO %%I', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid),
                  %(owner)s::text)
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = 'vouchers'
      AND format('%%I.%%I(%%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) = ANY (%(functions)s::text[])
) AS f
WHERE f.owner <> %(owner)s::text
ORDER BY f.rank, f.name

-- All that a migration must know before it changes anything; one row.
WITH wanted (name) AS (
    VALUES ('customers'), ('subscriptions'), ('orders'), ('promo_codes'), ('promo_redemptions'), ('credit_ledger')
), found AS (
    SELECT w.name, c.relowner, c.relkind
    FROM wanted AS w
    LEFT JOIN pg_class AS c ON c.relname = w.name AND c.relnamespace = 'public'::regnamespace
)
SELECT current_user::text AS role,
       current_database()::text AS database,
       coalesce(current_schema()::text, '(none)') AS home,
       coalesce(array_agg(name ORDER BY name) FILTER (WHERE relowner IS NOT NULL
           AND NOT pg_has_role(relowner, 'USAGE')), '{}') AS not_owned,
       coalesce(array_agg(name ORDER BY name) FILTER (WHERE relkind <> 'r'), '{}') AS not_tables,
       coalesce(bool_or(relowner IS NULL), false)
           AND NOT has_schema_privilege('public', 'CREATE') AS cannot_create_tables,
       coalesce((SELECT NOT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'vouchers'), false)
           AS schema_not_owned,
       (SELECT count(*) = 0 FROM pg_namespace WHERE nspname = 'vouchers')
           AND NOT has_database_privilege(current_database(), 'CREATE') AS cannot_create_schema,
       EXISTS (SELECT FROM pg_namespace WHERE nspname = 'vouchers') AS has_schema,
       EXISTS (SELECT FROM pg_roles WHERE rolname = %(runtime_role)s) AS role_exists,
       EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolcreaterole)) AS may_create_role,
       to_regclass('vouchers.sovereign') IS NOT NULL AS has_sovereign,
       pg_is_in_recovery() AS read_only
FROM found

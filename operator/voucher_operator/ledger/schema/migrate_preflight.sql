-- Everything that a migration must know before it changes anything; one row. `owner` is the role that has, or shall have,
-- all objects of ours: the owner of the billing service's tables; without them, the owner of the schema vouchers; without
-- that, the role that migrates, or for a superuser the owner of the database.
WITH wanted (name) AS (
    VALUES ('customers'), ('subscriptions'), ('orders'), ('promo_codes'), ('promo_redemptions'), ('credit_ledger')
), found AS MATERIALIZED (
    SELECT w.name, c.relowner, c.relkind
    FROM wanted AS w
    LEFT JOIN pg_class AS c ON c.relname = w.name AND c.relnamespace = 'public'::regnamespace
), me AS MATERIALIZED (
    SELECT r.oid, r.rolname, r.rolsuper, r.rolcreaterole FROM pg_roles AS r WHERE r.rolname = current_user
), ours AS MATERIALIZED (
    SELECT n.oid, n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'vouchers'
), owner AS MATERIALIZED (
    SELECT r.oid, r.rolname, r.rolsuper
    FROM me
    JOIN pg_roles AS r ON r.oid = coalesce(
        (SELECT min(f.relowner::bigint)::oid FROM found AS f),
        (SELECT o.nspowner FROM ours AS o),
        CASE WHEN me.rolsuper THEN (SELECT d.datdba FROM pg_database AS d WHERE d.datname = current_database()) END,
        me.oid
    )
)
SELECT me.rolname::text AS role,
       owner.rolname::text AS owner,
       me.rolsuper AS is_superuser,
       owner.rolsuper AS owner_is_superuser,
       pg_has_role(owner.oid, 'MEMBER') AS is_member,
       current_database()::text AS database,
       coalesce(current_schema()::text, '(none)') AS home,
       (SELECT coalesce(jsonb_object_agg(f.name, pg_get_userbyid(f.relowner)), '{}') FROM found AS f
        WHERE f.relowner IS NOT NULL) AS tables,
       (SELECT coalesce(array_agg(f.name ORDER BY f.name) FILTER (WHERE f.relkind <> 'r'), '{}') FROM found AS f)
           AS not_tables,
       EXISTS (SELECT FROM found AS f WHERE f.relowner IS NULL)
           AND NOT has_schema_privilege(owner.oid, 'public', 'CREATE') AS cannot_create_tables,
       EXISTS (SELECT FROM ours) AS has_schema,
       NOT EXISTS (SELECT FROM ours) AND NOT has_database_privilege(current_database(), 'CREATE')
           AS cannot_create_schema,
       EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = %(runtime_role)s) AS role_exists,
       me.rolsuper OR me.rolcreaterole AS may_create_role,
       EXISTS (SELECT FROM ours AS o JOIN pg_class AS c ON c.relnamespace = o.oid WHERE c.relname = 'sovereign')
           AS has_sovereign,
       EXISTS (SELECT FROM ours AS o JOIN pg_class AS c ON c.relnamespace = o.oid WHERE c.relname = '_yoyo_migration')
           AS has_marks,
       current_setting('session_replication_role') AS replication_role,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS read_only
FROM me CROSS JOIN owner

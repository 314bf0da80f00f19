-- After every run: the runtime role (vouchers.runtime_role, set by `migrate`) has these rights and no others, and nobody
-- but the owner has what makes a function run as the owner. Nothing is written when that is so already.
-- A role that owns the tables cannot be restricted by rights: a warning is raised for it.

DO $grants$
DECLARE
    runtime text := current_setting('vouchers.runtime_role');
    wanted jsonb := jsonb_build_object(
        'public.promo_codes', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'public.customers', '["SELECT", "INSERT"]'::jsonb,
        'public.promo_redemptions', '["SELECT", "INSERT"]'::jsonb,
        'public.credit_ledger', '["SELECT", "INSERT"]'::jsonb,
        'public.orders', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'public.subscriptions', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.sovereign', '["SELECT"]'::jsonb,
        'vouchers.account', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.account_backfill', '["SELECT"]'::jsonb,
        'vouchers.backfill_progress', '["SELECT"]'::jsonb,
        'vouchers.backfill_total', '["SELECT"]'::jsonb,
        'vouchers.terms', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.served_namespace', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.redemption', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.attempt', '["SELECT", "INSERT", "DELETE"]'::jsonb,
        'vouchers.purchase', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.payment', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.dispute', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.outbox', '["SELECT", "INSERT", "UPDATE", "DELETE"]'::jsonb,
        'vouchers.webhook_event', '["SELECT", "INSERT", "UPDATE", "DELETE"]'::jsonb,
        'vouchers.inbox', '["SELECT", "INSERT", "UPDATE", "DELETE"]'::jsonb,
        'vouchers.summing', '["SELECT"]'::jsonb,
        'vouchers.summed', '["SELECT"]'::jsonb
    );
    -- Views of the version before, which runs beside this schema during an upgrade (0024, 0025); this version needs none.
    views constant text[] := ARRAY['vouchers.inbox', 'vouchers.summing', 'vouchers.summed'];
    -- Single columns: relation -> privilege -> columns.
    columns constant jsonb := '{"public.customers": {"UPDATE": ["lock_right"]}}';
    -- Functions that are called by name, and by which roles. 'everybody': every writer of promo_codes runs it for an index.
    -- 'granted': the runtime role, and roles to which the owner has granted it. 'runtime': the runtime role only. A
    -- function that is not listed is for triggers: no role needs a right for a trigger to fire, and a role that has one
    -- can create a trigger with it on a table of its own.
    callers constant jsonb := '{
        "vouchers.normal_code(text)": "everybody",
        "vouchers.scale()": "granted",
        "vouchers.floor_to_major(bigint)": "granted",
        "vouchers.floor_to_major(bigint,bigint)": "granted",
        "vouchers.whole(bigint)": "granted",
        "vouchers.whole_units(bigint,bigint)": "granted",
        "vouchers.key_namespace(text)": "granted",
        "vouchers.take_back_redemption(text)": "runtime",
        "vouchers.open_account(uuid)": "runtime",
        "vouchers.lock_account(uuid)": "runtime"
    }';
    privileges text[] := ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'];
    is_owner boolean;
    step text;
    rel text;
    privilege text;
    routine text;
    grantee text;
BEGIN
    FOR routine, grantee IN
        SELECT p.oid::regprocedure, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_proc AS p
        CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
        WHERE p.pronamespace = 'vouchers'::regnamespace AND a.grantee <> p.proowner AND pg_has_role(p.proowner, 'USAGE')
          AND CASE callers ->> p.oid::regprocedure::text
                  WHEN 'everybody' THEN false
                  WHEN 'granted' THEN a.grantee = 0
                  WHEN 'runtime' THEN a.grantee IS DISTINCT FROM (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = runtime)
                  ELSE true
              END
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %s CASCADE', routine, grantee);
    END LOOP;
    FOR routine, grantee IN
        SELECT p.oid::regprocedure, CASE WHEN c.value = 'everybody' THEN 'PUBLIC' ELSE quote_ident(runtime) END
        FROM pg_proc AS p
        JOIN jsonb_each_text(callers) AS c ON c.key = p.oid::regprocedure::text
        WHERE p.pronamespace = 'vouchers'::regnamespace
          AND CASE WHEN c.value = 'everybody' THEN NOT has_function_privilege('public', p.oid, 'EXECUTE')
                   ELSE NOT has_function_privilege(runtime, p.oid, 'EXECUTE') END
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, grantee);
    END LOOP;

    SELECT jsonb_object_agg(w.key, w.value) INTO wanted
    FROM jsonb_each(wanted) AS w
    WHERE w.key <> ALL (views) OR to_regclass(w.key) IS NOT NULL;
    SELECT bool_or(pg_has_role(runtime, c.relowner, 'USAGE')) INTO is_owner
    FROM jsonb_object_keys(wanted) AS k JOIN pg_class AS c ON c.oid = k::regclass;
    IF is_owner THEN
        RAISE WARNING 'runtime role % owns the ledger''s tables (or may act as their owner or as superuser): '
            'it can change and delete ledger entries; give the operator a role of its own', quote_ident(runtime);
        RETURN;
    END IF;

    IF NOT has_schema_privilege(runtime, 'public', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', runtime);
    END IF;
    IF NOT has_schema_privilege(runtime, 'vouchers', 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA vouchers TO %I', runtime);
    END IF;

    -- The runtime role has no right on other objects of the owner in our schema.
    SELECT wanted || coalesce(jsonb_object_agg(format('vouchers.%I', c.relname), '[]'::jsonb), '{}') INTO wanted
    FROM pg_class AS c
    WHERE c.relnamespace = 'vouchers'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
      AND pg_has_role(c.relowner, 'USAGE') AND NOT wanted ? format('vouchers.%I', c.relname);
    IF current_setting('server_version_num')::integer >= 170000 THEN
        privileges := privileges || 'MAINTAIN'::text;
    END IF;
    FOREACH step IN ARRAY ARRAY['revoke', 'warn'] LOOP
        FOR rel, privilege IN
            SELECT w.key, p
            FROM jsonb_each(wanted) AS w CROSS JOIN unnest(privileges) AS p
            WHERE NOT w.value ? p
              AND (has_table_privilege(runtime, w.key, p)
                   OR p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND EXISTS (
                       SELECT FROM pg_attribute AS a
                       WHERE a.attrelid = w.key::regclass AND a.attnum > 0 AND NOT a.attisdropped
                         AND NOT coalesce(columns #> ARRAY[w.key, p] ? a.attname::text, false)
                         AND has_column_privilege(runtime, w.key, a.attnum, p)
                   ))
        LOOP
            IF step = 'revoke' THEN
                EXECUTE format('REVOKE %s ON %s FROM %I CASCADE', privilege, rel, runtime);
            ELSE
                RAISE WARNING 'runtime role % has % on % through another role or PUBLIC: revoke it there',
                    quote_ident(runtime), privilege, rel;
            END IF;
        END LOOP;
    END LOOP;
    FOR rel, privilege IN
        SELECT w.key, p FROM jsonb_each(wanted) AS w CROSS JOIN jsonb_array_elements_text(w.value) AS p
        WHERE NOT has_table_privilege(runtime, w.key, p)
        UNION ALL
        SELECT c.key, format('%s (%I)', p.key, a)
        FROM jsonb_each(columns) AS c CROSS JOIN jsonb_each(c.value) AS p CROSS JOIN jsonb_array_elements_text(p.value) AS a
        WHERE NOT has_column_privilege(runtime, c.key, a, p.key)
    LOOP
        EXECUTE format('GRANT %s ON %s TO %I', privilege, rel, runtime);
    END LOOP;

    FOREACH rel IN ARRAY ARRAY['public', 'vouchers'] LOOP
        IF has_schema_privilege(runtime, rel, 'CREATE') THEN
            EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM %I', rel, runtime);
            IF has_schema_privilege(runtime, rel, 'CREATE') THEN
                RAISE WARNING 'runtime role % may create objects in schema % through another role or PUBLIC: revoke it there',
                    quote_ident(runtime), rel;
            END IF;
        END IF;
    END LOOP;
END
$grants$;

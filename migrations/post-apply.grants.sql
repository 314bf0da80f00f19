-- After every run: the runtime role (vouchers.runtime_role, set by `migrate`) has these rights and no others.
-- Nothing is written when they are in place already. A role that owns the tables cannot be held to them: it is warned about.

DO $grants$
DECLARE
    runtime text := current_setting('vouchers.runtime_role');
    wanted jsonb := jsonb_build_object(
        'public.promo_codes', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'public.customers', '["SELECT", "INSERT"]'::jsonb,
        'public.promo_redemptions', '["SELECT", "INSERT", "DELETE"]'::jsonb,
        'public.credit_ledger', '["SELECT", "INSERT"]'::jsonb,
        'public.orders', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'public.subscriptions', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.sovereign', '["SELECT"]'::jsonb,
        'vouchers.summing', '["SELECT"]'::jsonb,
        'vouchers.summed', '["SELECT"]'::jsonb,
        'vouchers.terms', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.redemption', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.purchase', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.payment', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.dispute', '["SELECT", "INSERT", "UPDATE"]'::jsonb,
        'vouchers.outbox', '["SELECT", "INSERT", "UPDATE", "DELETE"]'::jsonb,
        'vouchers.inbox', '["SELECT", "INSERT", "UPDATE", "DELETE"]'::jsonb
    );
    customers constant text := 'public.customers';
    is_owner boolean;
    rel text;
    privilege text;
    routine regprocedure;
BEGIN
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

    FOR rel IN SELECT jsonb_object_keys(wanted) LOOP
        FOREACH privilege IN ARRAY ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'] LOOP
            IF wanted -> rel ? privilege THEN
                IF NOT has_table_privilege(runtime, rel, privilege) THEN
                    EXECUTE format('GRANT %s ON %s TO %I', privilege, rel, runtime);
                END IF;
            ELSIF has_table_privilege(runtime, rel, privilege)
                  OR (rel <> customers AND privilege IN ('INSERT', 'UPDATE', 'REFERENCES')
                      AND has_any_column_privilege(runtime, rel, privilege)) THEN
                EXECUTE format('REVOKE %s ON %s FROM %I', privilege, rel, runtime);
                IF has_table_privilege(runtime, rel, privilege) THEN
                    RAISE WARNING 'runtime role % has % on % through another role or PUBLIC: revoke it there',
                        quote_ident(runtime), privilege, rel;
                END IF;
            END IF;
        END LOOP;
    END LOOP;
    IF NOT has_column_privilege(runtime, customers, 'email', 'UPDATE') THEN
        EXECUTE format('GRANT UPDATE (email) ON %s TO %I', customers, runtime);
    END IF;

    FOR routine IN SELECT p.oid::regprocedure FROM pg_proc AS p WHERE p.pronamespace = 'vouchers'::regnamespace LOOP
        IF NOT has_function_privilege(runtime, routine, 'EXECUTE') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', routine, runtime);
        END IF;
    END LOOP;

    IF has_schema_privilege(runtime, 'public', 'CREATE') THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA public FROM %I', runtime);
        IF has_schema_privilege(runtime, 'public', 'CREATE') THEN
            RAISE WARNING 'runtime role % may create objects in schema public through another role or PUBLIC: revoke it there',
                quote_ident(runtime);
        END IF;
    END IF;
END
$grants$;

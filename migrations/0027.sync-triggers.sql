-- The triggers that keep the columns of promo_codes consistent are called after what they do. A file of its own, for they are
-- on a table that is much used.
-- depends: 0026.function-names

ALTER FUNCTION vouchers.promo_codes_in_step() RENAME TO promo_codes_sync;

-- One that is absent is named, with the command that makes it, after the migrations.
DO $body$
DECLARE
    command text;
BEGIN
    FOR command IN
        SELECT format('ALTER TRIGGER %I ON public.promo_codes RENAME TO %I', t.tgname, replace(t.tgname, '_in_step', '_sync'))
        FROM pg_trigger AS t
        WHERE t.tgrelid = 'public.promo_codes'::regclass AND t.tgname IN ('vouchers_insert_in_step', 'vouchers_update_in_step')
    LOOP
        EXECUTE command;
    END LOOP;
END
$body$;

-- A new customer has an account from the start, whichever service inserts the row: it need not be opened later.
-- depends: 0013.uses-of-all-spellings

CREATE OR REPLACE FUNCTION vouchers.customers_after_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'customers' THEN
        RAISE EXCEPTION 'this trigger is for public.customers alone';
    END IF;
    INSERT INTO vouchers.account (customer_id)
    SELECT c.id FROM inserted AS c ORDER BY c.id
    ON CONFLICT (customer_id) DO NOTHING;
    RETURN NULL;
END
$body$;

REVOKE ALL ON FUNCTION vouchers.customers_after_insert() FROM PUBLIC;

CREATE OR REPLACE TRIGGER vouchers_after_insert AFTER INSERT ON customers
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION vouchers.customers_after_insert();

-- credit_ledger_newest begins with the same column: an entry is written into one index by customer, as before. An index
-- with this name and another definition stays.
-- depends: 0022.credit-ledger-newest-index

DO $drop$
BEGIN
    IF pg_get_indexdef(to_regclass('public.credit_ledger_customer_id'))
       = 'CREATE INDEX credit_ledger_customer_id ON public.credit_ledger USING btree (customer_id)' THEN
        DROP INDEX public.credit_ledger_customer_id;
    END IF;
END
$drop$;

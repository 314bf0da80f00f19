-- vouchers.inbox becomes vouchers.webhook_event. A view keeps the former name for the version before, which runs beside this
-- schema during an upgrade and after a rollback; whoever has a right on the table has it on the view, from this commit on.
-- An index that is absent or INVALID is built again after the migrations (ledger/schema/shapes.py).
-- depends: 0023.credit-ledger-customer-index

ALTER TABLE vouchers.inbox RENAME TO webhook_event;

CREATE VIEW vouchers.inbox AS SELECT * FROM vouchers.webhook_event;

DO $body$
DECLARE
    former text;
    command text;
BEGIN
    IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'inbox_pkey' AND conrelid = 'vouchers.webhook_event'::regclass) THEN
        ALTER TABLE vouchers.webhook_event RENAME CONSTRAINT inbox_pkey TO webhook_event_pkey;
    END IF;
    IF EXISTS (
        SELECT FROM pg_constraint WHERE conname = 'inbox_outcome_check' AND conrelid = 'vouchers.webhook_event'::regclass
    ) THEN
        ALTER TABLE vouchers.webhook_event RENAME CONSTRAINT inbox_outcome_check TO webhook_event_outcome_check;
    END IF;
    FOR former, command IN
        SELECT c.relname, CASE
            WHEN i.indisvalid THEN format('ALTER INDEX vouchers.%I RENAME TO %I', c.relname,
                                          replace(c.relname, 'inbox_', 'webhook_event_'))
            ELSE format('DROP INDEX vouchers.%I', c.relname)
        END
        FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid
        WHERE i.indrelid = 'vouchers.webhook_event'::regclass AND c.relname IN ('inbox_order', 'inbox_received')
    LOOP
        EXECUTE command;
    END LOOP;
    FOR command IN
        SELECT format('GRANT %s ON vouchers.inbox TO %s', a.privilege_type,
                      CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = 'vouchers.webhook_event'::regclass AND a.grantee <> c.relowner
          AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE command;
    END LOOP;
END
$body$;

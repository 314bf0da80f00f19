-- vouchers.summing becomes backfill_progress, vouchers.summed becomes backfill_total. Views keep the former names, with the
-- rights, as in 0024.
-- depends: 0024.webhook-event

ALTER TABLE vouchers.summing RENAME TO backfill_progress;
CREATE VIEW vouchers.summing AS SELECT * FROM vouchers.backfill_progress;

ALTER TABLE vouchers.summed RENAME TO backfill_total;
CREATE VIEW vouchers.summed AS SELECT * FROM vouchers.backfill_total;

DO $body$
DECLARE
    command text;
BEGIN
    FOR command IN
        SELECT format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', c.conrelid::regclass, c.conname, n.present)
        FROM pg_constraint AS c
        JOIN (VALUES ('vouchers.backfill_progress', 'summing_pkey', 'backfill_progress_pkey'),
                     ('vouchers.backfill_progress', 'summing_singleton_check', 'backfill_progress_singleton_check'),
                     ('vouchers.backfill_total', 'summed_pkey', 'backfill_total_pkey')
        ) AS n (relation, former, present) ON n.relation::regclass = c.conrelid AND n.former = c.conname
        UNION ALL
        SELECT format('GRANT %s ON %s TO %s', a.privilege_type, n.view,
                      CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM (VALUES ('vouchers.backfill_progress', 'vouchers.summing'), ('vouchers.backfill_total', 'vouchers.summed')
        ) AS n (relation, view)
        JOIN pg_class AS c ON c.oid = n.relation::regclass
        CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE a.grantee <> c.relowner AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE command;
    END LOOP;
END
$body$;

-- Tables, functions and triggers get the names that engineers expect: webhook_event (was inbox), backfill_progress and
-- backfill_total (summing, summed), floor_to_major (whole, whole_units), promo_codes_sync (promo_codes_in_step). The old
-- names stay as views and functions, for the version before this one: it runs beside this schema during an upgrade, and
-- after a rollback.
-- depends: 0023.credit-ledger-customer-index

ALTER TABLE vouchers.inbox RENAME TO webhook_event;
ALTER TABLE vouchers.webhook_event RENAME CONSTRAINT inbox_pkey TO webhook_event_pkey;
ALTER TABLE vouchers.webhook_event RENAME CONSTRAINT inbox_outcome_check TO webhook_event_outcome_check;
ALTER INDEX vouchers.inbox_order RENAME TO webhook_event_order;
ALTER INDEX vouchers.inbox_received RENAME TO webhook_event_received;
CREATE VIEW vouchers.inbox AS SELECT * FROM vouchers.webhook_event;

ALTER TABLE vouchers.summing RENAME TO backfill_progress;
ALTER TABLE vouchers.backfill_progress RENAME CONSTRAINT summing_pkey TO backfill_progress_pkey;
ALTER TABLE vouchers.backfill_progress RENAME CONSTRAINT summing_singleton_check TO backfill_progress_singleton_check;
CREATE VIEW vouchers.summing AS SELECT * FROM vouchers.backfill_progress;

ALTER TABLE vouchers.summed RENAME TO backfill_total;
ALTER TABLE vouchers.backfill_total RENAME CONSTRAINT summed_pkey TO backfill_total_pkey;
CREATE VIEW vouchers.summed AS SELECT * FROM vouchers.backfill_total;

ALTER FUNCTION vouchers.whole(bigint) RENAME TO floor_to_major;
ALTER FUNCTION vouchers.whole_units(bigint, bigint) RENAME TO floor_to_major;
ALTER FUNCTION vouchers.promo_codes_in_step() RENAME TO promo_codes_sync;
ALTER TRIGGER vouchers_insert_in_step ON promo_codes RENAME TO vouchers_insert_sync;
ALTER TRIGGER vouchers_update_in_step ON promo_codes RENAME TO vouchers_update_sync;

CREATE FUNCTION vouchers.whole(minor bigint) RETURNS integer
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN vouchers.floor_to_major(minor);

CREATE FUNCTION vouchers.whole_units(minor bigint, scale bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN vouchers.floor_to_major(minor, scale);

REVOKE ALL ON FUNCTION vouchers.whole(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION vouchers.whole_units(bigint, bigint) FROM PUBLIC;

-- The bodies of the functions in PL/pgSQL are text: they still have the old names.
DO $body$
DECLARE
    definition text;
BEGIN
    FOR definition IN
        SELECT pg_get_functiondef(p.oid)
        FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
        WHERE p.pronamespace = 'vouchers'::regnamespace AND l.lanname = 'plpgsql'
          AND p.prosrc ~ 'vouchers\.(whole|whole_units|summing|summed|inbox)\M'
    LOOP
        definition := regexp_replace(definition, 'vouchers\.(whole|whole_units)\(', 'vouchers.floor_to_major(', 'g');
        definition := regexp_replace(definition, 'vouchers\.summing\M', 'vouchers.backfill_progress', 'g');
        definition := regexp_replace(definition, 'vouchers\.summed\M', 'vouchers.backfill_total', 'g');
        EXECUTE regexp_replace(definition, 'vouchers\.inbox\M', 'vouchers.webhook_event', 'g');
    END LOOP;
END
$body$;

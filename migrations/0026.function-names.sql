-- vouchers.whole and whole_units become floor_to_major: minor units in major ones, rounded down. The former names stay as
-- functions for the version before, with the rights that the functions have. They have bodies of their own: after a rollback
-- that version's `migrate` leaves the runtime role only the functions that it knows.
-- depends: 0025.backfill-names

ALTER FUNCTION vouchers.whole(bigint) RENAME TO floor_to_major;
ALTER FUNCTION vouchers.whole_units(bigint, bigint) RENAME TO floor_to_major;

CREATE FUNCTION vouchers.whole(minor bigint) RETURNS integer
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN floor(minor::numeric / vouchers.scale())::integer;

CREATE FUNCTION vouchers.whole_units(minor bigint, scale bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (minor - (minor % scale + scale) % scale) / scale;

REVOKE ALL ON FUNCTION vouchers.whole(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION vouchers.whole_units(bigint, bigint) FROM PUBLIC;

DO $body$
DECLARE
    command text;
BEGIN
    FOR command IN
        SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', n.former,
                      CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM (VALUES ('vouchers.floor_to_major(bigint)', 'vouchers.whole(bigint)'),
                     ('vouchers.floor_to_major(bigint, bigint)', 'vouchers.whole_units(bigint, bigint)')
        ) AS n (present, former)
        JOIN pg_proc AS p ON p.oid = n.present::regprocedure
        CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE a.grantee <> p.proowner
    LOOP
        EXECUTE command;
    END LOOP;
    -- The bodies of the functions in PL/pgSQL are text: they still have the former names of 0024, 0025 and this file.
    FOR command IN
        SELECT pg_get_functiondef(p.oid)
        FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
        WHERE p.pronamespace = 'vouchers'::regnamespace AND l.lanname = 'plpgsql'
          AND p.prosrc ~ 'vouchers\.(whole|whole_units|summing|summed|inbox)\M'
    LOOP
        command := regexp_replace(command, 'vouchers\.(whole|whole_units)\(', 'vouchers.floor_to_major(', 'g');
        command := regexp_replace(command, 'vouchers\.summing\M', 'vouchers.backfill_progress', 'g');
        command := regexp_replace(command, 'vouchers\.summed\M', 'vouchers.backfill_total', 'g');
        EXECUTE regexp_replace(command, 'vouchers\.inbox\M', 'vouchers.webhook_event', 'g');
    END LOOP;
END
$body$;

-- Triggers that keep vouchers.account, and the major units of every customer, correct for all writers.
--
-- An entry with `balance_minor` (the customer's exact balance after it) has been added to its account by the statement that
-- wrote it (redeem.sql). An entry without one, of the Go service, of an older operator, of a person or of a statement of
-- ours that writes few entries, is completed here before it is written:
--   amount_minor   if NULL: the major units; for the grant of a code the credit of the code, whose major units the Go
--                  service has read under the row's lock;
--   amount_omr     the amount that brings the sum of the customer's major units to the floor of the exact balance.
-- A DELETE or an UPDATE writes no entry that could contain a difference of major units: so an entry with the reason
-- 'rounding' and the exact amount 0 is added. vouchers.open_account corrects the difference that it finds. Only a change
-- that fires no trigger can make the two sums differ: `verify` reports it, and vouchers.recompute_account corrects it.
--
-- The functions run as their owner: their search_path has no schema that others may write to, and every name except
-- PostgreSQL's own is qualified; no other role may execute them (post-apply.grants.sql grants two to the runtime role).
--
-- Locks: promo_codes, then vouchers.account by customer, then vouchers.redemption. This file holds ACCESS EXCLUSIVE for
-- the changes of the catalog, so that no entry is written between the old triggers and these.
-- depends: 0011.undo-unreported-index

ALTER TABLE credit_ledger ADD COLUMN IF NOT EXISTS balance_minor bigint;

-- Minor units in major units, rounded down, also for values that no column can hold; `scale` as vouchers.scale().
CREATE OR REPLACE FUNCTION vouchers.whole_units(minor bigint, scale bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (minor - (minor % scale + scale) % scale) / scale;

-- Creates the account of a customer who has none yet from the entries that exist; true when this call has created it. The
-- new row is locked before the entries are added up, by a statement whose snapshot is newer: a session that wrote an entry
-- meanwhile had to insert or lock the same row, and has committed. Major units that differ from the floor are corrected.
CREATE OR REPLACE FUNCTION vouchers.open_account(customer uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    scale constant bigint := vouchers.scale();
    minor bigint;
    whole bigint;
BEGIN
    IF EXISTS (SELECT FROM vouchers.account AS a WHERE a.customer_id = customer) THEN
        RETURN false;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the account of a customer is opened in READ COMMITTED alone, whose snapshot is younger than a lock'
            USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO vouchers.account (customer_id) VALUES (customer) ON CONFLICT (customer_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT coalesce(sum(coalesce(e.amount_minor, e.amount_omr * scale)), 0), coalesce(sum(e.amount_omr), 0)
    INTO minor, whole
    FROM public.credit_ledger AS e
    WHERE e.customer_id = customer;
    UPDATE vouchers.account AS a SET balance_minor = minor WHERE a.customer_id = customer;
    IF whole <> vouchers.whole_units(minor, scale) THEN
        INSERT INTO public.credit_ledger (customer_id, amount_omr, amount_minor, balance_minor, reason)
        VALUES (customer, vouchers.whole_units(minor, scale) - whole, 0, minor, 'rounding');
    END IF;
    RETURN true;
END
$body$;

-- Locks a customer's account, creates it if there is none, and returns the balance as of this lock.
CREATE OR REPLACE FUNCTION vouchers.lock_account(customer uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    minor bigint;
BEGIN
    PERFORM vouchers.open_account(customer);
    SELECT a.balance_minor INTO minor FROM vouchers.account AS a WHERE a.customer_id = customer FOR NO KEY UPDATE;
    RETURN minor;
END
$body$;

-- Computes an account again, under its lock, and corrects the major units: for changes that have fired no trigger (a
-- restore of data only, session_replication_role). For administrators, as the tables' owner.
CREATE OR REPLACE FUNCTION vouchers.recompute_account(customer uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    scale constant bigint := vouchers.scale();
    minor bigint := vouchers.lock_account(customer);
    whole bigint;
BEGIN
    SELECT coalesce(sum(coalesce(e.amount_minor, e.amount_omr * scale)), 0), coalesce(sum(e.amount_omr), 0)
    INTO minor, whole
    FROM public.credit_ledger AS e
    WHERE e.customer_id = customer;
    UPDATE vouchers.account AS a SET balance_minor = minor WHERE a.customer_id = customer AND a.balance_minor <> minor;
    IF whole <> vouchers.whole_units(minor, scale) THEN
        INSERT INTO public.credit_ledger (customer_id, amount_omr, amount_minor, balance_minor, reason)
        VALUES (customer, vouchers.whole_units(minor, scale) - whole, 0, minor, 'rounding');
    END IF;
    RETURN minor;
END
$body$;

-- Adds to an account a change of the customer's entries, in exact and in major units.
CREATE OR REPLACE FUNCTION vouchers.adjust_account(customer uuid, minor bigint, whole bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    scale constant bigint := vouchers.scale();
    balance bigint;
    difference bigint;
BEGIN
    IF vouchers.open_account(customer) THEN
        RETURN;  -- made of the entries as they are now
    END IF;
    UPDATE vouchers.account AS a SET balance_minor = a.balance_minor + minor WHERE a.customer_id = customer
    RETURNING a.balance_minor INTO balance;
    difference := vouchers.whole_units(balance, scale) - vouchers.whole_units(balance - minor, scale) - whole;
    IF difference <> 0 THEN
        INSERT INTO public.credit_ledger (customer_id, amount_omr, amount_minor, balance_minor, reason)
        VALUES (customer, difference, 0, balance, 'rounding');
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION vouchers.credit_ledger_before_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    scale constant bigint := vouchers.scale();
    of_code boolean;
    granted bigint;
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'credit_ledger' THEN
        RAISE EXCEPTION 'this trigger is for public.credit_ledger alone';
    END IF;
    of_code := NEW.amount_minor IS NULL AND NEW.reason LIKE 'promo:%' AND coalesce(NEW.order_id, '') = '';
    IF of_code THEN
        SELECT CASE WHEN p.credit_omr = NEW.amount_omr THEN p.credit_minor END
        INTO granted
        FROM public.promo_codes AS p
        WHERE p.code = substr(NEW.reason, 7)
        FOR NO KEY UPDATE;
    END IF;
    NEW.balance_minor := vouchers.lock_account(NEW.customer_id);
    -- ON CONFLICT DO NOTHING or DO UPDATE: this row is not inserted, and what is done instead is another trigger's.
    IF EXISTS (SELECT FROM public.credit_ledger AS e WHERE e.id = NEW.id) THEN
        RETURN NEW;
    END IF;
    NEW.amount_minor := coalesce(NEW.amount_minor, granted, NEW.amount_omr * scale);
    IF of_code THEN
        UPDATE public.promo_codes AS p
        SET granted_minor = p.granted_minor + NEW.amount_minor,
            last_redeemed_at = CASE WHEN NEW.amount_minor > 0 THEN now() ELSE p.last_redeemed_at END
        WHERE p.code = substr(NEW.reason, 7);
    END IF;
    NEW.balance_minor := NEW.balance_minor + NEW.amount_minor;
    UPDATE vouchers.account AS a SET balance_minor = NEW.balance_minor WHERE a.customer_id = NEW.customer_id;
    NEW.amount_omr := vouchers.whole_units(NEW.balance_minor, scale)
        - vouchers.whole_units(NEW.balance_minor - NEW.amount_minor, scale);
    RETURN NEW;
END
$body$;

-- Besides the account: the sum of a code's grants (an entry from before the first migration is in it only after `migrate`
-- has counted it: 0005), and the request whose grant is deleted. That is the Go service's undo: it has deleted the row of
-- promo_redemptions and lowered the counter itself.
CREATE OR REPLACE FUNCTION vouchers.credit_ledger_after_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    scale constant bigint := vouchers.scale();
    counted_upto uuid;
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'credit_ledger' THEN
        RAISE EXCEPTION 'this trigger is for public.credit_ledger alone';
    END IF;
    IF EXISTS (SELECT FROM removed AS r WHERE r.amount_minor IS NULL) THEN
        SELECT s.upto INTO counted_upto FROM vouchers.summing AS s WHERE NOT s.finished FOR SHARE;
    END IF;
    UPDATE public.promo_codes AS p
    SET granted_minor = p.granted_minor - g.minor
    FROM (
        SELECT substr(r.reason, 7) AS code, sum(coalesce(r.amount_minor, r.amount_omr * scale))::bigint AS minor
        FROM removed AS r
        WHERE r.reason LIKE 'promo:%' AND coalesce(r.order_id, '') = ''
          AND (r.amount_minor IS NOT NULL OR coalesce(r.id < counted_upto, true))
        GROUP BY 1
    ) AS g
    WHERE p.code = g.code;
    PERFORM vouchers.adjust_account(c.customer_id, -c.minor, -c.whole)
    FROM (
        SELECT r.customer_id, sum(coalesce(r.amount_minor, r.amount_omr * scale))::bigint AS minor,
               sum(r.amount_omr)::bigint AS whole
        FROM removed AS r
        GROUP BY r.customer_id
        ORDER BY r.customer_id
    ) AS c;
    UPDATE vouchers.redemption AS d
    SET outcome = 'undone', undone_at = clock_timestamp(), undone_by = session_user
    FROM removed AS r
    WHERE d.customer_id = r.customer_id AND d.grant_entry_id = r.id AND d.outcome = 'redeemed';
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION vouchers.credit_ledger_after_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    scale constant bigint := vouchers.scale();
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'credit_ledger' THEN
        RAISE EXCEPTION 'this trigger is for public.credit_ledger alone';
    END IF;
    PERFORM vouchers.adjust_account(c.customer_id, c.minor, c.whole)
    FROM (
        SELECT b.customer_id, sum(b.minor)::bigint AS minor, sum(b.whole)::bigint AS whole
        FROM (
            SELECT n.customer_id, coalesce(n.amount_minor, n.amount_omr * scale) AS minor, n.amount_omr AS whole
            FROM changed AS n
            UNION ALL
            SELECT o.customer_id, -coalesce(o.amount_minor, o.amount_omr * scale), -o.amount_omr
            FROM original AS o
        ) AS b
        GROUP BY b.customer_id
        HAVING sum(b.minor) <> 0 OR sum(b.whole) <> 0
        ORDER BY b.customer_id
    ) AS c;
    RETURN NULL;
END
$body$;

-- A person corrects only the major units, the one column that the Go service shows: the exact amount changes by the same.
CREATE OR REPLACE FUNCTION vouchers.credit_ledger_before_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'credit_ledger' THEN
        RAISE EXCEPTION 'this trigger is for public.credit_ledger alone';
    END IF;
    NEW.amount_minor := OLD.amount_minor + (NEW.amount_omr - OLD.amount_omr) * vouchers.scale();
    RETURN NEW;
END
$body$;

CREATE OR REPLACE FUNCTION vouchers.credit_ledger_after_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'credit_ledger' THEN
        RAISE EXCEPTION 'this trigger is for public.credit_ledger alone';
    END IF;
    UPDATE vouchers.account AS a SET balance_minor = 0 WHERE a.balance_minor <> 0;
    RETURN NULL;
END
$body$;

-- In the same transaction: at no moment may another role execute them.
REVOKE ALL ON FUNCTION vouchers.open_account(uuid), vouchers.lock_account(uuid), vouchers.recompute_account(uuid),
    vouchers.adjust_account(uuid, bigint, bigint), vouchers.credit_ledger_before_insert(),
    vouchers.credit_ledger_before_update(), vouchers.credit_ledger_after_delete(), vouchers.credit_ledger_after_update(),
    vouchers.credit_ledger_after_truncate() FROM PUBLIC;

DROP TRIGGER IF EXISTS vouchers_filled ON credit_ledger;

DROP TRIGGER IF EXISTS vouchers_removed ON credit_ledger;

CREATE OR REPLACE TRIGGER vouchers_before_insert BEFORE INSERT ON credit_ledger
    FOR EACH ROW WHEN (NEW.balance_minor IS NULL)
    EXECUTE FUNCTION vouchers.credit_ledger_before_insert();

CREATE OR REPLACE TRIGGER vouchers_after_delete AFTER DELETE ON credit_ledger
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION vouchers.credit_ledger_after_delete();

CREATE OR REPLACE TRIGGER vouchers_after_update AFTER UPDATE ON credit_ledger
    REFERENCING OLD TABLE AS original NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION vouchers.credit_ledger_after_update();

CREATE OR REPLACE TRIGGER vouchers_before_update BEFORE UPDATE ON credit_ledger
    FOR EACH ROW WHEN (NEW.amount_omr <> OLD.amount_omr AND NEW.amount_minor = OLD.amount_minor)
    EXECUTE FUNCTION vouchers.credit_ledger_before_update();

CREATE OR REPLACE TRIGGER vouchers_after_truncate AFTER TRUNCATE ON credit_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION vouchers.credit_ledger_after_truncate();

DROP FUNCTION IF EXISTS vouchers.credit_ledger_filled();

DROP FUNCTION IF EXISTS vouchers.credit_ledger_removed();

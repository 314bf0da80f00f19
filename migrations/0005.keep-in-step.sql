-- Triggers that keep our columns right under the Go service's writes, and the columns' first values, in one transaction:
-- both tables are locked against writes (not reads) in the Go service's own order, so no entry is missed or counted twice.
-- No weaker mode will do: one that lets SELECT FOR UPDATE in deadlocks with a redemption between its lock and its update.
-- The functions run as their owner with a fixed search_path: the writer needs no right on anything of ours.
-- Our own statements fill all columns themselves, so that none of these fires on the way of a redemption.
-- depends: 0004.credit-ledger-columns

LOCK TABLE promo_codes IN EXCLUSIVE MODE;

LOCK TABLE credit_ledger IN EXCLUSIVE MODE;

CREATE OR REPLACE FUNCTION vouchers.promo_codes_in_step() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
DECLARE
    minor_given boolean := NEW.credit_minor IS NOT NULL;
    cap_set boolean := true;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        minor_given := minor_given
            AND (NEW.credit_minor IS DISTINCT FROM OLD.credit_minor OR NEW.credit_omr = OLD.credit_omr);
        cap_set := NEW.max_redemptions <> OLD.max_redemptions;
    END IF;
    IF minor_given THEN
        NEW.credit_omr := vouchers.whole(NEW.credit_minor);
    ELSE
        NEW.credit_minor := NEW.credit_omr * vouchers.scale();
    END IF;
    IF cap_set THEN
        NEW.uses_at_cap := NEW.times_redeemed;
    END IF;
    RETURN NEW;
END
$body$;

CREATE OR REPLACE FUNCTION vouchers.credit_ledger_filled() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
BEGIN
    NEW.amount_minor := NEW.amount_omr * vouchers.scale();
    IF NEW.reason LIKE 'promo:%' AND coalesce(NEW.order_id, '') = '' THEN
        UPDATE promo_codes
        SET granted_minor = granted_minor + NEW.amount_minor,
            last_redeemed_at = CASE WHEN NEW.amount_minor > 0 THEN now() ELSE last_redeemed_at END
        WHERE code = substr(NEW.reason, 7);
    END IF;
    RETURN NEW;
END
$body$;

CREATE OR REPLACE FUNCTION vouchers.credit_ledger_removed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
BEGIN
    UPDATE promo_codes
    SET granted_minor = granted_minor - coalesce(OLD.amount_minor, OLD.amount_omr * vouchers.scale())
    WHERE code = substr(OLD.reason, 7);
    RETURN NULL;
END
$body$;

DROP TRIGGER IF EXISTS vouchers_insert_in_step ON promo_codes;

CREATE TRIGGER vouchers_insert_in_step BEFORE INSERT ON promo_codes
    FOR EACH ROW EXECUTE FUNCTION vouchers.promo_codes_in_step();

DROP TRIGGER IF EXISTS vouchers_update_in_step ON promo_codes;

CREATE TRIGGER vouchers_update_in_step BEFORE UPDATE ON promo_codes
    FOR EACH ROW
    WHEN (NEW.credit_omr <> OLD.credit_omr OR NEW.credit_minor IS DISTINCT FROM OLD.credit_minor
          OR NEW.max_redemptions <> OLD.max_redemptions)
    EXECUTE FUNCTION vouchers.promo_codes_in_step();

DROP TRIGGER IF EXISTS vouchers_filled ON credit_ledger;

CREATE TRIGGER vouchers_filled BEFORE INSERT ON credit_ledger
    FOR EACH ROW WHEN (NEW.amount_minor IS NULL)
    EXECUTE FUNCTION vouchers.credit_ledger_filled();

DROP TRIGGER IF EXISTS vouchers_removed ON credit_ledger;

CREATE TRIGGER vouchers_removed AFTER DELETE ON credit_ledger
    FOR EACH ROW WHEN (OLD.reason LIKE 'promo:%' AND coalesce(OLD.order_id, '') = '')
    EXECUTE FUNCTION vouchers.credit_ledger_removed();

UPDATE promo_codes AS p
SET granted_minor = e.granted, last_redeemed_at = e.latest
FROM (
    SELECT substr(reason, 7) AS code,
           sum(coalesce(amount_minor, amount_omr * vouchers.scale()))::bigint AS granted,
           max(created_at) FILTER (WHERE amount_omr > 0) AS latest
    FROM credit_ledger
    WHERE reason LIKE 'promo:%' AND coalesce(order_id, '') = ''
    GROUP BY 1
) AS e
WHERE p.code = e.code;

-- A counter above its cap today may stem from a cap that was lowered long ago: nobody recorded it.
UPDATE promo_codes SET uses_at_cap = times_redeemed WHERE max_redemptions > 0 AND times_redeemed > max_redemptions;

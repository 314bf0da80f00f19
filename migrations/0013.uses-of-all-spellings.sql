-- The uses of all spellings of one code are added up: so is the counter that is stored when a cap is set (0003).
-- depends: 0012.entries-in-balance

CREATE OR REPLACE FUNCTION vouchers.promo_codes_in_step() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    minor_given boolean := NEW.credit_minor IS NOT NULL;
    cap_set boolean := true;
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'promo_codes' THEN
        RAISE EXCEPTION 'this trigger is for public.promo_codes alone';
    END IF;
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
        SELECT NEW.times_redeemed + coalesce(sum(p.times_redeemed), 0)
        INTO NEW.uses_at_cap
        FROM public.promo_codes AS p
        WHERE vouchers.normal_code(p.code) = vouchers.normal_code(NEW.code) AND p.code <> NEW.code;
    END IF;
    RETURN NEW;
END
$body$;

REVOKE ALL ON FUNCTION vouchers.promo_codes_in_step() FROM PUBLIC;

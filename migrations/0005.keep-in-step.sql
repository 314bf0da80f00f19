-- Triggers that keep our columns right under the Go service's writes. Nothing here grows with the ledger: both tables are
-- locked against writes (not reads), in the Go service's own order, for as long as it takes to create four triggers. A
-- weaker mode is not enough: one that permits SELECT FOR UPDATE deadlocks with a redemption between its lock and its
-- update. The functions run as their owner with a fixed search_path: the writer needs no right on anything of ours. Our own
-- statements fill all columns themselves, so that none of these triggers fires for a redemption. The credit that was
-- granted before is added up afterwards, in portions (ledger/schema/backfill.py). An older entry has no amount_minor, and
-- every entry from now on has one: so no entry is missed or counted twice, also when others write meanwhile.
-- depends: 0004.credit-ledger-columns

-- The progress: older entries whose id is less than `upto` are counted, in vouchers.summed or, after their code's row was
-- not locked by others, in promo_codes. A session that deletes one of them waits for the portion under way, and no longer.
CREATE TABLE IF NOT EXISTS vouchers.summing (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    upto uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    finished boolean NOT NULL DEFAULT false
);

INSERT INTO vouchers.summing DEFAULT VALUES ON CONFLICT (singleton) DO NOTHING;

-- Totals that are not added to their code's row yet. Empty when the backfill is finished.
CREATE TABLE IF NOT EXISTS vouchers.summed (
    code text PRIMARY KEY,
    granted_minor bigint NOT NULL,
    last_redeemed_at timestamptz
);

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
DECLARE
    uncounted uuid;
BEGIN
    IF OLD.amount_minor IS NULL THEN
        SELECT s.upto INTO uncounted FROM vouchers.summing AS s WHERE NOT s.finished FOR SHARE;
        IF OLD.id >= uncounted THEN
            RETURN NULL;
        END IF;
    END IF;
    UPDATE promo_codes
    SET granted_minor = granted_minor - coalesce(OLD.amount_minor, OLD.amount_omr * vouchers.scale())
    WHERE code = substr(OLD.reason, 7);
    RETURN NULL;
END
$body$;

CREATE OR REPLACE TRIGGER vouchers_insert_in_step BEFORE INSERT ON promo_codes
    FOR EACH ROW EXECUTE FUNCTION vouchers.promo_codes_in_step();

CREATE OR REPLACE TRIGGER vouchers_update_in_step BEFORE UPDATE ON promo_codes
    FOR EACH ROW
    WHEN (NEW.credit_omr <> OLD.credit_omr OR NEW.credit_minor IS DISTINCT FROM OLD.credit_minor
          OR NEW.max_redemptions <> OLD.max_redemptions)
    EXECUTE FUNCTION vouchers.promo_codes_in_step();

CREATE OR REPLACE TRIGGER vouchers_filled BEFORE INSERT ON credit_ledger
    FOR EACH ROW WHEN (NEW.amount_minor IS NULL)
    EXECUTE FUNCTION vouchers.credit_ledger_filled();

CREATE OR REPLACE TRIGGER vouchers_removed AFTER DELETE ON credit_ledger
    FOR EACH ROW WHEN (OLD.reason LIKE 'promo:%' AND coalesce(OLD.order_id, '') = '')
    EXECUTE FUNCTION vouchers.credit_ledger_removed();

-- A counter above its cap today may come from a cap that was lowered long ago, which was not recorded.
UPDATE promo_codes SET uses_at_cap = times_redeemed WHERE max_redemptions > 0 AND times_redeemed > max_redemptions;

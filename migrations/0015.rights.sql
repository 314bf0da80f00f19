-- The runtime role needs two rights that no grant on a table gives alone: to lock a customer's row without the right to
-- change it, and to delete a redemption row only together with the reversal of its credit.
-- depends: 0014.customers-have-accounts

-- SELECT ... FOR NO KEY UPDATE needs UPDATE on one column of the table. This is that column: it can only be NULL. A
-- function that locks would work, too, but would hide the lock order, and versions that lock the table themselves would not
-- work beside it. NOT VALID: a new column has no other value, and the table need not be read for that.
ALTER TABLE customers
    ADD COLUMN IF NOT EXISTS lock_right boolean,
    DROP CONSTRAINT IF EXISTS customers_lock_right_check,
    ADD CONSTRAINT customers_lock_right_check CHECK (lock_right IS NULL) NOT VALID;

-- Deletes the redemption row of a request that is being undone, for undo.sql: under the locks of an undo, after it has
-- written outcome and reversal. Returns whether there was one. The reversal is an entry of this very transaction (its
-- xmin), so that no call deletes a row twice or another request's row: each call needs a new entry, which only the
-- tables' owner can change or delete. Raises insufficient_privilege when there is no such reversal.
CREATE OR REPLACE FUNCTION vouchers.take_back_redemption(request_key text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS $body$
DECLARE
    customer uuid;
    redeemed_code text;
BEGIN
    SELECT d.customer_id, d.code INTO customer, redeemed_code
    FROM vouchers.redemption AS d
    JOIN public.credit_ledger AS g ON g.id = d.grant_entry_id
    JOIN public.credit_ledger AS v ON v.id = d.reversal_entry_id
    WHERE d.key = request_key AND d.outcome = 'undone'
      AND v.xmin = pg_current_xact_id()::xid
      AND g.customer_id = d.customer_id AND g.reason = 'promo:' || d.code
      AND v.customer_id = g.customer_id AND v.reason = g.reason AND coalesce(v.order_id, '') = ''
      AND coalesce(v.amount_minor, v.amount_omr * vouchers.scale())
          = -coalesce(g.amount_minor, g.amount_omr * vouchers.scale());
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this transaction has not reversed the grant of this request'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM public.promo_redemptions AS r WHERE r.customer_id = customer AND r.code = redeemed_code;
    RETURN FOUND;
END
$body$;

REVOKE ALL ON FUNCTION vouchers.take_back_redemption(text) FROM PUBLIC;

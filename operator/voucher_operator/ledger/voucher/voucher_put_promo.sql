-- Writes the terms to the row that customers redeem. The counters are the ledger's own and are not changed.
INSERT INTO promo_codes AS p (code, credit_omr, credit_minor, description, active, max_redemptions)
VALUES (
    %(code)s, vouchers.floor_to_major(%(credit_minor)s), %(credit_minor)s, %(description)s, %(active)s, %(max_redemptions)s
)
ON CONFLICT (code) DO UPDATE
SET credit_omr = excluded.credit_omr, credit_minor = excluded.credit_minor, description = excluded.description,
    active = excluded.active, max_redemptions = excluded.max_redemptions, deleted_at = NULL

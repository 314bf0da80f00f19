-- Writes the Voucher's terms, which are live then. A Voucher that replaces one of its name keeps the earlier creation time: in a
-- restored cluster all resources are new, and no other Voucher may take the code for being older.
INSERT INTO vouchers.terms AS t (
    code, owner_uid, owner_namespace, owner_name, owner_created_at, generation, from_secret, credit_minor, description,
    active, max_redemptions, valid_from, valid_until, updated_at
)
VALUES (
    %(code)s, %(uid)s, %(namespace)s, %(name)s, %(created_at)s, %(generation)s, %(from_secret)s, %(credit_minor)s,
    %(description)s, %(active)s, %(max_redemptions)s, %(valid_from)s, %(valid_until)s, clock_timestamp()
)
ON CONFLICT (code) DO UPDATE
SET owner_uid = excluded.owner_uid, owner_namespace = excluded.owner_namespace, owner_name = excluded.owner_name,
    owner_created_at = CASE
        WHEN t.owner_namespace = excluded.owner_namespace AND t.owner_name = excluded.owner_name
            THEN least(t.owner_created_at, excluded.owner_created_at)
        ELSE excluded.owner_created_at
    END,
    generation = excluded.generation, from_secret = excluded.from_secret,
    credit_minor = excluded.credit_minor, description = excluded.description, active = excluded.active,
    max_redemptions = excluded.max_redemptions, valid_from = excluded.valid_from, valid_until = excluded.valid_until,
    revoked_at = NULL, absent_at = NULL, released_to = NULL, updated_at = excluded.updated_at

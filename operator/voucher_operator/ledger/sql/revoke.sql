-- As the Go service revokes. By owner: a Voucher that lost its code to another one revokes nothing.
WITH ended AS (
    UPDATE vouchers.terms AS t
    SET revoked_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE t.owner_uid = %(uid)s AND t.revoked_at IS NULL
    RETURNING t.code
),
hidden AS (
    UPDATE promo_codes AS p
    SET deleted_at = coalesce(p.deleted_at, clock_timestamp()), active = false
    FROM ended AS e
    WHERE p.code = e.code
)
SELECT count(*) FROM ended

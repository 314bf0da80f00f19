-- Revokes as the Go service does. By owner: a Voucher that lost its code to another one revokes nothing. `absent`: nobody has
-- seen its deletion.
WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS instant),
ended AS (
    UPDATE vouchers.terms AS t
    SET revoked_at = m.instant, absent_at = CASE WHEN %(absent)s THEN m.instant END, updated_at = m.instant
    FROM moment AS m
    WHERE t.owner_uid = %(uid)s AND t.revoked_at IS NULL
    RETURNING t.code, t.from_secret, t.owner_namespace, t.owner_name, t.credit_minor
),
hidden AS (
    UPDATE promo_codes AS p
    SET deleted_at = coalesce(p.deleted_at, clock_timestamp()), active = false
    FROM ended AS e
    WHERE p.code = e.code
),
announced AS (
    INSERT INTO vouchers.outbox (type, tenant_id, data)
    SELECT 'voucher.revoked', '', jsonb_strip_nulls(jsonb_build_object(
        'code', CASE WHEN NOT e.from_secret THEN e.code END, 'namespace', e.owner_namespace, 'name', e.owner_name,
        'credit_minor', e.credit_minor, 'currency', (SELECT s.currency FROM vouchers.sovereign AS s)
    ))
    FROM ended AS e
)
SELECT count(*) FROM ended

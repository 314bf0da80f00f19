-- How a payment stands after an event about it was recorded. `returned`: refunded in full before, and a later response of the
-- processor says otherwise. `lost_minor`: the sum of the lost disputes that no person has settled, of a payment of the
-- amount that is due if no other is known; NULL without such a dispute. `disputes_lost`: with the settled ones.
SELECT y.refunded, y.refunded_at IS NOT NULL AND y.seen_at IS NOT NULL AND NOT y.refunded AS returned,
       CASE WHEN d.minor IS NOT NULL
            THEN least(d.minor, greatest(coalesce(y.amount_minor, %(due)s::bigint) - y.refunded_minor, 0)) END AS lost_minor,
       d.lost > 0 AS disputes_lost
FROM vouchers.payment AS y
CROSS JOIN LATERAL (
    SELECT count(*) AS lost,
           sum(coalesce(d.amount_minor, y.amount_minor, %(due)s::bigint)) FILTER (WHERE d.settled_at IS NULL)::bigint AS minor
    FROM vouchers.dispute AS d
    WHERE d.session_id = y.session_id AND d.status = 'lost'
) AS d
WHERE y.session_id = %(session)s

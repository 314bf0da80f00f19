-- A completed or charged back purchase has one event order.placed (a refunded one may have it), a rolled back one one
-- redemption.rolled_back, and no other has either. No event stays unpublished for over an hour. outbox_purge.sql deletes
-- events 30 days after they were published: a purchase that was placed or rolled back before that may have none any more.
-- (A completed one may be settled again, when its refund fails.)
SELECT NULL::text AS code, p.customer_id, p.key,
       CASE WHEN coalesce(e.placed, 0) NOT BETWEEN w.least AND w.most
            THEN format('is %s and has %s events order.placed', p.state, coalesce(e.placed, 0))
            ELSE format('is %s and has %s events redemption.rolled_back', p.state, coalesce(b.number, 0)) END AS detail
FROM vouchers.purchase AS p
CROSS JOIN LATERAL (
    SELECT (p.state IN ('completed', 'charged_back') AND least(p.placed_at, p.settled_at) > y.old)::integer AS least,
           (p.state IN ('completed', 'refunded', 'charged_back'))::integer AS most,
           (p.state = 'rolled_back' AND coalesce(p.settled_at > y.old, true))::integer AS least_back,
           (p.state = 'rolled_back')::integer AS most_back
    FROM (SELECT now() - interval '29 days' AS old) AS y
) AS w
LEFT JOIN (
    SELECT data ->> 'id' AS order_id, count(*) AS placed FROM vouchers.outbox WHERE type = 'order.placed' GROUP BY 1
) AS e ON e.order_id = p.order_id::text
LEFT JOIN (
    SELECT data ->> 'key' AS key, count(*) AS number FROM vouchers.outbox WHERE type = 'redemption.rolled_back' GROUP BY 1
) AS b ON b.key = p.key
WHERE coalesce(e.placed, 0) NOT BETWEEN w.least AND w.most OR coalesce(b.number, 0) NOT BETWEEN w.least_back AND w.most_back
UNION ALL
SELECT NULL, NULL, NULL, format('%s events are not published, %s of them for longer than an hour: is NATS there?',
                                count(*), count(*) FILTER (WHERE o.at < now() - interval '1 hour'))
FROM vouchers.outbox AS o
WHERE o.published_at IS NULL
HAVING min(o.at) < now() - interval '1 hour'
ORDER BY key

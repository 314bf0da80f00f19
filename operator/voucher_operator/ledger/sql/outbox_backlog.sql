-- The oldest is the first in order: two that were written at the same moment differ by no more than that moment.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT f.at FROM vouchers.outbox AS f WHERE f.published_at IS NULL ORDER BY f.seq LIMIT 1
       )), 0)::double precision
FROM vouchers.outbox AS o
WHERE o.published_at IS NULL

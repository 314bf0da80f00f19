-- How many events are not published, counted up to 100,000: this runs every other second, and they accumulate while NATS
-- cannot be reached. The oldest is the first in order: two events that are written at the same moment differ by no more.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT f.at FROM vouchers.outbox AS f WHERE f.published_at IS NULL ORDER BY f.seq LIMIT 1
       )), 0)::double precision AS oldest_seconds
FROM (SELECT o.seq FROM vouchers.outbox AS o WHERE o.published_at IS NULL LIMIT 100000) AS o

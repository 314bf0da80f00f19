-- How many events wait, counted up to 100,000: asked for every other second, and the longer NATS is away the more wait.
-- The oldest is the first in order: two that were written at the same moment differ by no more than that moment.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT f.at FROM vouchers.outbox AS f WHERE f.published_at IS NULL ORDER BY f.seq LIMIT 1
       )), 0)::double precision
FROM (SELECT o.seq FROM vouchers.outbox AS o WHERE o.published_at IS NULL LIMIT 100000) AS o

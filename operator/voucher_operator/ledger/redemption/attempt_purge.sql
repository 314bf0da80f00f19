-- Deletes wrong codes of more than a day ago, the oldest first, and returns how many and up to when; goes on from `after`.
WITH old AS MATERIALIZED (
    SELECT a.key, a.uid, a.at
    FROM vouchers.attempt AS a
    WHERE a.at < now() - interval '1 day' AND a.at >= coalesce(%(after)s::timestamptz, '-infinity')
    ORDER BY a.at
    LIMIT %(limit)s
),
deleted AS (
    DELETE FROM vouchers.attempt AS a USING old AS d WHERE a.key = d.key AND a.uid = d.uid
)
SELECT count(*) AS number, max(d.at) AS last FROM old AS d

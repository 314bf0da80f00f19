-- Which live vouchers may have changed since a snapshot of before, and the mark of the present one. A row's xmin is the transaction that
-- wrote it. One that the earlier snapshot did not see was running at that moment, or began later: so its number is not below the lowest
-- one that was running then (`xid`), in whatever order transactions commit. Numbers are compared by age, as they begin again after
-- four billion. The numbers belong to one server: after a failover or a restore it began at another time, and `server` differs.
-- With a window, time alone changes the state: a limit since `at` counts as a change. What is deleted leaves no trace here.
-- NULL for xid returns the mark alone. At most `limit` uids.
SELECT pg_postmaster_start_time() AS server, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid,
       statement_timestamp() AS at,
       ARRAY(
           SELECT moved.owner_uid
           FROM (
               SELECT t.owner_uid
               FROM vouchers.terms AS t
               WHERE t.revoked_at IS NULL
                 AND (age(t.xmin) BETWEEN 0 AND age(%(xid)s::text::xid)
                      OR t.valid_from BETWEEN %(at)s::timestamptz AND clock_timestamp()
                      OR t.valid_until BETWEEN %(at)s::timestamptz AND clock_timestamp())
               UNION
               SELECT t.owner_uid
               FROM promo_codes AS p
               JOIN vouchers.terms AS t ON vouchers.normal_code(t.code) = vouchers.normal_code(p.code)
               WHERE t.revoked_at IS NULL AND age(p.xmin) BETWEEN 0 AND age(%(xid)s::text::xid)
           ) AS moved
           WHERE %(xid)s::text IS NOT NULL
           LIMIT %(limit)s
       ) AS uids

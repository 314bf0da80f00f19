-- Judges a batch of requests in arrival order and writes the results; returns one row for each request. Runs after
-- lock_promo.sql in the same transaction, so its snapshot is newer than the locks. No key occurs twice. A generic plan
-- expects ten rows in a batch, so no two parts of the batch are joined here: window functions do the work. When another
-- session writes the same key or the same new customer at this moment, a unique key or a CHECK is violated: the batch is
-- repeated, and reads what that session has written.
--
-- THE CAP is enforced by `counted`. A row that appeared after lock_promo.sql is not locked. So each row of promo_codes on
-- which the judgement is based, in any spelling, is updated only in the version that was judged (`xmin`). If one has
-- another version, `sound` is false, a CHECK is violated, and the batch is repeated with this row locked.
-- docs/architecture.md explains why no interleaving can exceed a cap. `sound` is also false for a customer without an
-- account (redeem.py then opens it).
--
-- A customer with too many wrong codes is refused every code for some time, correct ones too: otherwise the result would show
-- which code is correct. `attempts` is the limit (0: none), `attempt_seconds` the time. This refusal is not recorded. Each
-- namespace has its own limit for a customer, so that nobody can use up a customer's attempts in another namespace.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS instant, vouchers.scale() AS scale,
           (SELECT s.currency FROM vouchers.sovereign AS s) AS currency,
           %(attempts)s::integer AS attempts, make_interval(secs => %(attempt_seconds)s::float8) AS attempt_time
),
request AS MATERIALIZED (
    SELECT r.n, r.key, r.request_hash, r.uid, r.user_id, r.tenant_id, r.email, r.provisional,
           vouchers.normal_code(r.code) AS norm, coalesce(vouchers.key_namespace(r.key), '') AS namespace,
           d.outcome AS prior, d.uid AS prior_uid, d.request_hash AS prior_hash, d.reason AS prior_reason,
           d.code AS prior_code, d.credit_minor AS prior_credit, d.decided_at AS prior_decided_at
    FROM unnest(
        %(keys)s::text[], %(hashes)s::text[], %(uids)s::text[], %(codes)s::text[], %(users)s::text[],
        %(tenants)s::text[], %(emails)s::text[], %(provisional)s::boolean[]
    ) WITH ORDINALITY AS r (key, request_hash, uid, code, user_id, tenant_id, email, provisional, n)
    LEFT JOIN vouchers.redemption AS d ON d.key = r.key
),
-- A grant is bound to its key for ever, a refusal to key and uid; all other requests are judged. The row that a code means
-- is the one in normal spelling, else the only one that exists.
examined AS MATERIALIZED (
    SELECT a.*, c.id AS customer_id, coalesce(c.id, gen_random_uuid()) AS candidate, p.code, p.room, p.credit, m.instant,
           m.currency, m.scale, m.attempts, m.attempt_time, coalesce(f.used, 0) AS attempts_used, f.oldest AS oldest_attempt,
           p.spellings, p.versions, t.from_secret, t.owner_namespace, t.owner_name,
           CASE WHEN p.code IS NULL AND a.norm <> '' AND m.attempts > 0
                THEN NOT EXISTS (SELECT FROM vouchers.attempt AS o WHERE o.key = a.key AND o.uid = a.uid)
                ELSE false END AS missed,
           c.id IS NOT NULL AND b.customer_id IS NULL AS unopened,
           CASE
               WHEN p.code IS NULL THEN 'VoucherNotFound'
               WHEN NOT p.active THEN 'VoucherInactive'
               WHEN m.instant < t.valid_from THEN 'VoucherNotYetValid'
               WHEN m.instant > t.valid_until THEN 'VoucherExpired'
               WHEN EXISTS (
                   SELECT FROM promo_redemptions AS e WHERE e.customer_id = c.id AND e.code = ANY (p.spellings)
               ) THEN 'AlreadyRedeemed'
           END AS cause
    FROM request AS a
    CROSS JOIN moment AS m
    LEFT JOIN customers AS c ON c.user_id = a.user_id
    LEFT JOIN vouchers.account AS b ON b.customer_id = c.id
    LEFT JOIN LATERAL (
        SELECT s.code, s.active, s.spellings, s.versions,
               CASE WHEN s.max_redemptions > 0 THEN s.max_redemptions - s.uses END AS room,
               greatest(coalesce(s.credit_minor, s.credit_omr * m.scale), 0) AS credit
        FROM (
            SELECT q.*, array_agg(q.code) OVER () AS spellings, array_agg(q.xmin::text) OVER () AS versions,
                   sum(q.times_redeemed) OVER () AS uses
            FROM promo_codes AS q
            WHERE vouchers.normal_code(q.code) = a.norm AND a.norm <> ''
        ) AS s
        WHERE s.deleted_at IS NULL AND (s.code = a.norm OR cardinality(s.spellings) = 1)
    ) AS p ON true
    LEFT JOIN LATERAL (
        SELECT w.from_secret, w.owner_namespace, w.owner_name,
               CASE WHEN w.revoked_at IS NULL THEN w.valid_from END AS valid_from,
               CASE WHEN w.revoked_at IS NULL THEN w.valid_until END AS valid_until
        FROM vouchers.terms AS w
        WHERE w.code = p.code
        OFFSET 0
    ) AS t ON true
    -- The customer's newest wrong codes in this namespace, as many as the limit, without this very request, which may be judged again.
    LEFT JOIN LATERAL (
        SELECT count(*) AS used, min(w.at) AS oldest
        FROM (
            SELECT o.at
            FROM vouchers.attempt AS o
            WHERE o.user_id = a.user_id AND o.at > m.instant - m.attempt_time AND (o.key, o.uid) <> (a.key, a.uid)
                  AND coalesce(vouchers.key_namespace(o.key), '') = a.namespace
            ORDER BY o.at DESC
            LIMIT m.attempts
        ) AS w
    ) AS f ON a.norm <> '' AND m.attempts > 0
    WHERE a.prior IS NULL OR (a.prior = 'refused' AND a.prior_uid <> a.uid)
),
-- Wrong codes of earlier requests of this batch count like those of earlier batches.
limited AS (
    SELECT x.*,
           CASE WHEN x.attempts > 0 AND x.norm <> '' AND x.attempts <= x.attempts_used + count(*) FILTER (WHERE x.missed) OVER (
                         PARTITION BY x.user_id COLLATE "C", x.namespace COLLATE "C" ORDER BY x.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                     ) THEN 'TooManyAttempts'
                ELSE x.cause END AS reason
    FROM examined AS x
),
-- One customer's requests for one code stand together; only the first that nothing else refuses can be granted.
paired AS MATERIALIZED (
    SELECT x.*, x.reason IS NULL AND row_number() OVER pair = 1 AS eligible,
           first_value(x.candidate) OVER customer AS payee
    FROM limited AS x
    WINDOW pair AS (PARTITION BY x.user_id COLLATE "C", x.norm ORDER BY x.reason IS NOT NULL, x.n),
           customer AS (PARTITION BY x.user_id COLLATE "C" ORDER BY x.norm, x.reason IS NOT NULL, x.n)
),
-- The cap: of the eligible requests for a code, in arrival order, as many are granted as there is room for.
ranked AS MATERIALIZED (
    SELECT x.*,
           x.eligible AND (
               x.room IS NULL OR count(*) FILTER (WHERE x.eligible) OVER (PARTITION BY x.norm ORDER BY x.n) <= x.room
           ) AS granted
    FROM paired AS x
),
judged AS MATERIALIZED (
    SELECT r.*,
           CASE WHEN r.granted THEN gen_random_uuid() END AS entry_id,
           CASE
               WHEN r.granted THEN NULL
               WHEN r.reason IS NOT NULL THEN r.reason
               WHEN bool_or(r.granted) OVER (PARTITION BY r.user_id COLLATE "C", r.norm) THEN 'AlreadyRedeemed'
               ELSE 'RedemptionLimitReached'
           END AS refusal
    FROM ranked AS r
),
new_customer AS (
    INSERT INTO customers (id, user_id, tenant_id, email)
    SELECT DISTINCT ON (j.user_id COLLATE "C") j.payee, j.user_id, j.tenant_id, j.email
    FROM judged AS j
    WHERE j.granted AND j.customer_id IS NULL
    ORDER BY j.user_id COLLATE "C", j.n
    RETURNING 1
),
-- The rows on which the grants are based: the one that counts them, and all other spellings, unchanged.
judged_by AS MATERIALIZED (
    SELECT v.code, v.version, CASE WHEN v.code = g.code THEN g.times ELSE 0 END AS times,
           CASE WHEN v.code = g.code THEN g.total ELSE 0 END AS total, g.instant
    FROM (
        SELECT j.code, count(*)::integer AS times, sum(j.credit)::bigint AS total, min(j.instant) AS instant,
               min(j.spellings) AS spellings, min(j.versions) AS versions
        FROM judged AS j
        WHERE j.granted
        GROUP BY j.code
    ) AS g
    CROSS JOIN LATERAL unnest(g.spellings, g.versions) AS v (code, version)
),
counted AS (
    UPDATE promo_codes AS p
    SET times_redeemed = p.times_redeemed + b.times, granted_minor = p.granted_minor + b.total,
        last_redeemed_at = CASE WHEN b.times > 0 THEN b.instant ELSE p.last_redeemed_at END
    FROM judged_by AS b
    WHERE p.code = b.code AND p.xmin::text = b.version
    RETURNING 1
),
verdict AS MATERIALIZED (
    SELECT (SELECT count(*) FROM counted) = (SELECT count(*) FROM judged_by)
           AND NOT EXISTS (SELECT FROM judged AS j WHERE j.granted AND j.unopened) AS sound
),
-- Accounts are locked in order, after promo_codes and after new customers, whose insert may wait for another session.
posted AS (
    INSERT INTO vouchers.account AS b (customer_id, balance_minor)
    SELECT j.payee, sum(j.credit)
    FROM judged AS j
    WHERE j.granted AND (SELECT v.sound FROM verdict AS v) AND (SELECT count(*) FROM new_customer) >= 0
    GROUP BY j.payee
    ORDER BY j.payee
    ON CONFLICT (customer_id) DO UPDATE SET balance_minor = b.balance_minor + excluded.balance_minor
    RETURNING b.customer_id, b.balance_minor
),
-- The balance after each entry, computed backwards from the customer's last one.
balanced AS MATERIALIZED (
    SELECT e.*, first_value(e.posted) OVER customer - (sum(e.credit) OVER customer)::bigint + e.credit AS balance
    FROM (
        SELECT j.payee, j.n, j.entry_id, j.code, j.credit, j.instant, j.scale, NULL::bigint AS posted
        FROM judged AS j
        WHERE j.granted
        UNION ALL
        SELECT p.customer_id, NULL, NULL, NULL, NULL, NULL, NULL, p.balance_minor FROM posted AS p
    ) AS e
    WINDOW customer AS (PARTITION BY e.payee ORDER BY e.n DESC NULLS FIRST)
),
used AS (
    INSERT INTO promo_redemptions (customer_id, code, created_at)
    SELECT j.payee, j.code, j.instant FROM judged AS j WHERE j.granted
),
credited AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, balance_minor, reason, created_at)
    SELECT e.entry_id, e.payee,
           vouchers.floor_to_major(e.balance, e.scale) - vouchers.floor_to_major(e.balance - e.credit, e.scale),
           e.credit, e.balance, 'promo:' || e.code, e.instant
    FROM balanced AS e
    WHERE e.entry_id IS NOT NULL AND e.balance IS NOT NULL
),
-- In arrival order. A code that comes from a Secret, of a live or a revoked Voucher, is in no event.
announced AS (
    INSERT INTO vouchers.outbox (type, tenant_id, at, data)
    SELECT 'voucher.redeemed', j.tenant_id, j.instant, jsonb_strip_nulls(jsonb_build_object(
        'key', j.key, 'customer_id', j.payee, 'user_id', j.user_id, 'credit_minor', j.credit, 'currency', j.currency,
        'code', CASE WHEN j.from_secret IS NOT TRUE THEN j.code END, 'namespace', j.owner_namespace,
        'name', j.owner_name
    ))
    FROM judged AS j
    WHERE j.granted
    ORDER BY j.n
),
attempted AS (
    INSERT INTO vouchers.attempt (key, uid, user_id, at)
    SELECT j.key, j.uid, j.user_id, j.instant
    FROM judged AS j
    WHERE j.missed AND j.refusal = 'VoucherNotFound'
    ORDER BY j.key
    ON CONFLICT DO NOTHING
),
result AS MATERIALIZED (
    SELECT j.n, j.key, j.request_hash, j.uid,
           CASE WHEN NOT v.sound THEN 'overtaken' WHEN j.granted THEN 'redeemed' ELSE 'refused' END AS outcome,
           j.refusal AS reason, j.code, CASE WHEN j.granted THEN j.payee ELSE j.customer_id END AS customer_id, j.user_id,
           CASE WHEN j.granted THEN j.credit ELSE 0 END AS credit_minor, j.entry_id, j.instant AS decided_at,
           j.prior IS NOT NULL AS known, j.prior_decided_at,
           CASE WHEN j.refusal = 'TooManyAttempts' THEN coalesce(j.oldest_attempt, j.instant) + j.attempt_time END AS retry_at,
           NOT (j.provisional AND j.refusal IS NOT DISTINCT FROM 'VoucherNotFound')
           AND j.refusal IS DISTINCT FROM 'TooManyAttempts' AS final
    FROM judged AS j
    CROSS JOIN verdict AS v
),
recorded AS (
    INSERT INTO vouchers.redemption (
        key, request_hash, uid, outcome, reason, code, customer_id, user_id, credit_minor, grant_entry_id, decided_at
    )
    SELECT a.key, a.request_hash, a.uid, a.outcome, a.reason, a.code, a.customer_id, a.user_id, a.credit_minor,
           a.entry_id, a.decided_at
    FROM result AS a
    WHERE a.final AND NOT a.known
),
overwritten AS (
    UPDATE vouchers.redemption AS d
    SET outcome = CASE WHEN d.outcome = 'refused' AND d.decided_at = a.prior_decided_at THEN a.outcome
                       ELSE 'overtaken' END,
        request_hash = a.request_hash, uid = a.uid, reason = a.reason, code = a.code, customer_id = a.customer_id,
        user_id = a.user_id, credit_minor = a.credit_minor, grant_entry_id = a.entry_id, decided_at = a.decided_at
    FROM result AS a
    WHERE a.final AND a.known AND d.key = a.key
)
SELECT a.n, a.outcome, a.reason, a.code, a.credit_minor, a.decided_at, false AS replayed, a.retry_at
FROM result AS a
UNION ALL
SELECT k.n,
       CASE WHEN s.same THEN k.prior ELSE 'refused' END,
       CASE WHEN s.same THEN k.prior_reason ELSE 'IdempotencyConflict' END,
       CASE WHEN s.same THEN k.prior_code END,
       CASE WHEN s.same THEN k.prior_credit ELSE 0 END,
       CASE WHEN s.same THEN k.prior_decided_at ELSE m.instant END,
       s.same,
       NULL
FROM request AS k
CROSS JOIN moment AS m
CROSS JOIN LATERAL (SELECT k.prior = 'refused' OR k.prior_hash = k.request_hash AS same) AS s
WHERE k.prior <> 'refused' OR k.prior_uid = k.uid

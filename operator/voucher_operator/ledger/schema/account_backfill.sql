-- Opens the accounts of the next customers by id, and records the progress. Returns one row: whether the end is reached; no
-- row when it was reached before. The account of a customer who is added meanwhile with a smaller id is opened when an
-- entry is written.
WITH progress AS MATERIALIZED (
    SELECT b.upto FROM vouchers.account_backfill AS b WHERE NOT b.finished
),
portion AS MATERIALIZED (
    SELECT c.id
    FROM customers AS c
    WHERE c.id > (SELECT p.upto FROM progress AS p)
    ORDER BY c.id
    LIMIT %(size)s
),
opened AS MATERIALIZED (
    SELECT vouchers.open_account(o.id) FROM (SELECT p.id FROM portion AS p ORDER BY p.id) AS o
)
UPDATE vouchers.account_backfill AS b
SET upto = coalesce((SELECT p.id FROM portion AS p ORDER BY p.id DESC LIMIT 1), b.upto),
    finished = (SELECT count(*) FROM opened) < %(size)s
FROM progress AS p
WHERE NOT b.finished
RETURNING b.finished

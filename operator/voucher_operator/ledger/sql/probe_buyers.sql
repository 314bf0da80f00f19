-- Users of a batch whose row another session holds locked at this moment, however lightly: a purchase locks it itself.
-- The free ones are locked for the length of this statement only.
WITH free AS MATERIALIZED (
    SELECT c.user_id FROM customers AS c WHERE c.user_id = ANY (%(users)s::text[]) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT c.user_id
FROM customers AS c
WHERE c.user_id = ANY (%(users)s::text[]) AND c.user_id NOT IN (SELECT free.user_id FROM free)

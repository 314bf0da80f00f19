-- Users of a batch whose row another session holds locked at this moment against the foreign keys of a redemption.
WITH free AS MATERIALIZED (
    SELECT c.user_id FROM customers AS c WHERE c.user_id = ANY (%(users)s::text[]) FOR KEY SHARE SKIP LOCKED
)
SELECT c.user_id
FROM customers AS c
WHERE c.user_id = ANY (%(users)s::text[]) AND c.user_id NOT IN (SELECT free.user_id FROM free)

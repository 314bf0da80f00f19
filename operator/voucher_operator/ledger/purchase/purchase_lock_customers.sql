-- Locks the buyers in the one order of all sessions, after promo_codes. The next statement sees what others spent while
-- this one waited. With this collation PostgreSQL sorts, and does not read the primary key in its order.
SELECT 1
FROM customers AS c
WHERE c.user_id = ANY (%(users)s::text[])
ORDER BY c.id::text COLLATE "C"
FOR NO KEY UPDATE

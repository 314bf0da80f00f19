-- Locks those who buy, in the one order that everybody uses, after promo_codes: the statement after it sees what others
-- spent while this one waited. The collation keeps the primary key from being walked for its order.
SELECT 1
FROM customers AS c
WHERE c.user_id = ANY (%(users)s::text[])
ORDER BY c.id::text COLLATE "C"
FOR NO KEY UPDATE

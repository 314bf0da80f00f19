-- Locks the rows of some codes, in all spellings, in the one order of all sessions. The next statement sees what others
-- committed while this one waited. With this collation PostgreSQL sorts, and does not read the primary key in its order.
SELECT 1
FROM promo_codes AS p
WHERE vouchers.normal_code(p.code) = ANY (
    ARRAY(SELECT vouchers.normal_code(given.code) FROM unnest(%(codes)s::text[]) AS given (code))
)
ORDER BY p.code COLLATE "C"
FOR NO KEY UPDATE

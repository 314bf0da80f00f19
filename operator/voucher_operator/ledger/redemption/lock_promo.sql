-- Locks the rows of some codes, in any spelling, in the one order that everybody uses: the statement after it sees what
-- others committed while this one waited. The collation keeps the primary key from being walked for its order.
SELECT 1
FROM promo_codes AS p
WHERE vouchers.normal_code(p.code) = ANY (
    ARRAY(SELECT vouchers.normal_code(asked.code) FROM unnest(%(codes)s::text[]) AS asked (code))
)
ORDER BY p.code COLLATE "C"
FOR NO KEY UPDATE

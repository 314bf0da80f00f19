-- Keys of purchases without a checkout URL, the oldest first, without those that only a newer version understands
-- (purchase/rows.py).
SELECT p.key
FROM vouchers.purchase AS p
WHERE p.state = 'pending'
  AND p.state = ANY (%(states)s::text[]) AND (p.reason IS NULL OR p.reason = ANY (%(reasons)s::text[]))
  AND jsonb_path_query_array(p.lines, '$[*].keyvalue().key', silent => true) <@ to_jsonb(%(line_fields)s::text[])
ORDER BY p.placed_at
LIMIT %(limit)s

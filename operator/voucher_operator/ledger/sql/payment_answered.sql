-- What was taken although nothing was due has been given back: nobody has to look at it any more.
UPDATE vouchers.inbox AS i
SET outcome = 'no_change'
WHERE i.order_id = %(order)s AND i.outcome = 'mismatch'
  AND (%(session)s::text IS NULL OR i.session_id IS NULL OR i.session_id = %(session)s::text)

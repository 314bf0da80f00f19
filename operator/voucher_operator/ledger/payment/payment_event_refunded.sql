-- The payment of this checkout, which nothing was due for, has been given back: nobody has to look at it any more. Another
-- payment of the same order still waits.
UPDATE vouchers.webhook_event AS i
SET outcome = 'no_change'
WHERE i.order_id = %(order)s AND i.session_id = %(session)s AND i.outcome = 'mismatch'

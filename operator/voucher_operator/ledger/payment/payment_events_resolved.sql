-- No person need check this payment of this order any more: it is refunded in full or lost, or it has paid the order. An event
-- of another payment of the same order still needs one. An event that another session holds is left out: only a lookup
-- locks one, and it judges it anew, with this recorded. To wait for it here would be a deadlock, because it waits for the
-- customer.
WITH resolved AS MATERIALIZED (
    SELECT i.event_id
    FROM vouchers.webhook_event AS i
    WHERE i.order_id = %(order)s AND i.session_id = %(session)s AND i.outcome = 'mismatch'
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE vouchers.webhook_event AS i
SET outcome = 'no_change'
FROM resolved AS r
WHERE i.event_id = r.event_id

UPDATE vouchers.webhook_event AS i
SET outcome = %(outcome)s, order_id = %(order)s
WHERE i.event_id = %(event)s

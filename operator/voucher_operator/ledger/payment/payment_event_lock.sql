-- The outcome of an event, or of a lookup, that was stored before. Locked: lookups with one id are decided one by one.
SELECT i.outcome FROM vouchers.webhook_event AS i WHERE i.event_id = %(event)s FOR NO KEY UPDATE

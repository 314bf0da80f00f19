-- What became of an event, or of a look, that was kept before. Locked: one look at a time is judged.
SELECT i.outcome FROM vouchers.webhook_event AS i WHERE i.event_id = %(event)s FOR NO KEY UPDATE

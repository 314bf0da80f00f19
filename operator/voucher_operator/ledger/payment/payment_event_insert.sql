-- Stores an event unchanged, once: returns no row when it is stored already. Of two sessions that insert the same event the
-- second waits for the first one's commit. Its outcome follows in the same transaction (payment_event_outcome.sql).
INSERT INTO vouchers.webhook_event (event_id, type, raw, session_id, order_id, outcome)
VALUES (%(event)s, %(type)s, %(raw)s, %(session)s, %(order)s, %(outcome)s)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id

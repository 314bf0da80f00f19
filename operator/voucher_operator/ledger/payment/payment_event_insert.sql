-- Keeps an event as it came, once: no row comes back when it is there already. Of two that write it at the same time the
-- second waits for the first one's commit. What became of it follows in the same transaction (payment_event_outcome.sql).
INSERT INTO vouchers.webhook_event (event_id, type, raw, session_id, order_id, outcome)
VALUES (%(event)s, %(type)s, %(raw)s, %(session)s, %(order)s, %(outcome)s)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id

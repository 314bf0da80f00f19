"""The transactional outbox: events that wait to be published, and the end of old rows."""

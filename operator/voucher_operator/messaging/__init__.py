"""Publishes the ledger's events: `outbox_relay` reads the outbox, `nats_connection` publishes to NATS JetStream."""

"""What happened in the ledger, told to the platform. `relay` publishes the outbox, `bus` speaks to NATS JetStream."""

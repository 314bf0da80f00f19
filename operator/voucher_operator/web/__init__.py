"""HTTP: probes, metrics, and the webhook of the payment processor."""

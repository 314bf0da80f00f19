"""What others call over HTTP: the webhook of the payment processor."""

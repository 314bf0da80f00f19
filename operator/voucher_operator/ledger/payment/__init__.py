"""Payments in the ledger: what the events of the payment processor do to a purchase."""

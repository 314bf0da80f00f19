"""Purchases in the ledger: place, hold, capture, release, compensate."""

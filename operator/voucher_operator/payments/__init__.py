"""Prices from the catalog, checkouts at Stripe, and the saga of a purchase between the ledger and Stripe."""

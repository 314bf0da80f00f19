"""Prices from the catalog, checkouts at Stripe, and the way of one purchase between the ledger and them."""

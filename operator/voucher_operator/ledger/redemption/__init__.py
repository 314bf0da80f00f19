"""Redemptions in the ledger: one statement for a batch; `redeem.sql` enforces the cap."""

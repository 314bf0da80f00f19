"""Voucher: reconcile a resource with the ledger, and bring its counters into the status."""

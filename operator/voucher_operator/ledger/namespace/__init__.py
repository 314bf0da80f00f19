"""Namespaces in the ledger: which operator serves which, and which ones nobody serves any more."""

"""Vouchers in the ledger: issue, revoke, count; who owns a code."""

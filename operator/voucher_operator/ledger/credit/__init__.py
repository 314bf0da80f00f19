"""Customers' accounts: balance and entries."""

"""Redemption: translates the resource for the use cases, and their result into the status."""

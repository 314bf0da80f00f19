"""Redemption: from a resource to a use case, and from its result to a status."""

"""Redemption with an order: from a resource to the use case, its payment and its Organization."""

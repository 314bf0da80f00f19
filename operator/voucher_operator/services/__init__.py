"""The use cases: issue, revoke, redeem, order. They contain no Kubernetes and no HTTP."""

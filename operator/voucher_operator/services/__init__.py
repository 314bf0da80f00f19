"""The use cases: issue, revoke, redeem, order. No Kubernetes and no HTTP in them: both doors call the same."""

"""All SQL of the operator. Services and controllers call `api.Ledger`; this layer knows no Kubernetes."""

"""Everything that speaks SQL, and nothing else that does. Controllers call `Ledger`; this layer knows no Kubernetes."""

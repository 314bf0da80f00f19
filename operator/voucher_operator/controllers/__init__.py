"""From the API server to the ledger and back.

Read a resource, call the ledger, patch a status. No SQL, no money decided.

`watch` feeds two work queues, `vouchers` and `redemptions` reconcile, `projection` finds what no watch event tells,
`kube`, `writer` and `events` talk to the API server.
"""

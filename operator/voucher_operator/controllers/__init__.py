"""Controllers: each translates between a resource and a use case of `services`. No SQL, no rules about money.

`watch` and `resync` feed the work queues through `feed`; `voucher`, `redemption` and `purchase` reconcile; `wiring`
builds them all.
"""

-- purchase_undelivered_namespace (0026) has taken its place.
-- depends: 0026.purchase-undelivered-namespace-index

DROP INDEX IF EXISTS vouchers.purchase_owed;

-- purchase_owed has the same rows: the statement of an older operator finds them there.
-- depends: 0018.purchase-owed-index

DROP INDEX IF EXISTS vouchers.purchase_undelivered;

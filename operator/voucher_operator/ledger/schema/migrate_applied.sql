-- Ids of the migrations that have been applied, by any version.
SELECT m.migration_id FROM vouchers._yoyo_migration AS m

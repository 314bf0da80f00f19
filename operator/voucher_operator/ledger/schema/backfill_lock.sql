-- Where the backfill continues; no row when it is finished. The next statement's snapshot is newer than this lock: an entry
-- that another session deletes is either not in it, or deleted by a session that waits here and then reads the progress.
SELECT s.upto FROM vouchers.backfill_progress AS s WHERE NOT s.finished FOR UPDATE

-- Where the summing goes on; no row when it has come to its end. The next statement's snapshot is younger than this lock:
-- an entry that somebody deletes is either gone for it, or deleted by somebody who waits here and then reads how far it came.
SELECT s.upto FROM vouchers.backfill_progress AS s WHERE NOT s.finished FOR UPDATE

-- Events report these statuses of disputes. One that has another status since then is to be reported again.
UPDATE vouchers.dispute AS d
SET reported_status = r.status
FROM unnest(%(disputes)s::text[], %(statuses)s::text[]) AS r (dispute_id, status)
WHERE d.dispute_id = r.dispute_id

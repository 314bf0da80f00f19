-- First half of a compensation: the order fails and its hold is released (a trigger sets the major units). Runs under the
-- locks of a compensation; undo.sql then undoes the redemption, with this release in the balance.
WITH target AS MATERIALIZED (
    SELECT p.key, p.order_id, p.hold_entry_id, clock_timestamp() AS instant
    FROM vouchers.purchase AS p
    WHERE p.key = %(key)s AND p.state = 'pending'
),
released AS (
    INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, order_id, created_at)
    SELECT gen_random_uuid(), e.customer_id, vouchers.floor_to_major(-e.amount_minor), -e.amount_minor, e.reason, e.order_id,
           t.instant
    FROM target AS t
    JOIN credit_ledger AS e ON e.id = t.hold_entry_id
    RETURNING id
),
failed AS (
    UPDATE orders AS o SET status = 'failed' FROM target AS t WHERE o.id = t.order_id
)
UPDATE vouchers.purchase AS p
SET state = 'rolled_back', reason = %(reason)s, settled_at = t.instant, updated_at = t.instant,
    release_entry_id = (SELECT r.id FROM released AS r)
FROM target AS t
WHERE p.key = t.key

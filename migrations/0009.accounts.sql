-- One row a customer: the exact sum of the customer's entries. A balance costs one look-up, however long the history is, and
-- whoever writes an entry holds this row until the commit: so the whole-unit column of each entry can be what brings the sum
-- of all whole units to the floor of the exact balance (0012). No row yet: nobody has added up the entries of before
-- (vouchers.open_account; `migrate` does it for all customers, portion by portion).
-- depends: 0008.purchases

CREATE TABLE IF NOT EXISTS vouchers.account (
    customer_id uuid PRIMARY KEY,
    balance_minor bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- How far `migrate` has come with the customers of before, by id.
CREATE TABLE IF NOT EXISTS vouchers.account_backfill (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    upto uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    finished boolean NOT NULL DEFAULT false
);

INSERT INTO vouchers.account_backfill DEFAULT VALUES ON CONFLICT (singleton) DO NOTHING;

-- Who undid a redemption: the role of the session. `undo_reported_at`: its Redemption says so, or is gone;
-- `undo_checked_at`: when that was last looked at.
ALTER TABLE vouchers.redemption
    ADD COLUMN IF NOT EXISTS undone_by text,
    ADD COLUMN IF NOT EXISTS undo_reported_at timestamptz,
    ADD COLUMN IF NOT EXISTS undo_checked_at timestamptz;

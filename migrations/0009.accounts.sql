-- One row for each customer: the exact sum of the customer's entries. A balance is one lookup, however long the history is,
-- and a session that writes an entry locks this row until the commit. So the major units of each entry can be what brings
-- the sum of all major units to the floor of the exact balance (0012). No row: the older entries are not added up yet
-- (vouchers.open_account; `migrate` opens the accounts of all customers, in portions).
-- depends: 0008.purchases

CREATE TABLE IF NOT EXISTS vouchers.account (
    customer_id uuid PRIMARY KEY,
    balance_minor bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- The progress of `migrate` with the older customers, by id.
CREATE TABLE IF NOT EXISTS vouchers.account_backfill (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    upto uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    finished boolean NOT NULL DEFAULT false
);

INSERT INTO vouchers.account_backfill DEFAULT VALUES ON CONFLICT (singleton) DO NOTHING;

-- `undone_by`: the role of the session that undid the redemption. `undo_reported_at`: its Redemption has this in its
-- status, or is deleted; `undo_checked_at`: when that was last checked.
ALTER TABLE vouchers.redemption
    ADD COLUMN IF NOT EXISTS undone_by text,
    ADD COLUMN IF NOT EXISTS undo_reported_at timestamptz,
    ADD COLUMN IF NOT EXISTS undo_checked_at timestamptz;

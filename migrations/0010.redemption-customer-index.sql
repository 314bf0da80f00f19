-- The requests of one customer: with it a trigger finds the request whose entry the Go service deletes.
-- depends: 0009.accounts

CREATE INDEX IF NOT EXISTS redemption_customer_id ON vouchers.redemption (customer_id);

-- Wrong codes: requests for a code that the ledger did not know, so that nobody can guess codes without limit. One row a
-- request, also of one whose refusal is not recorded because its Voucher may still be issued. Only those of the last
-- minutes matter; all are deleted after a day.
-- depends: 0029.purchase-undelivered-namespace-index

CREATE TABLE IF NOT EXISTS vouchers.attempt (
    key text NOT NULL,
    uid text NOT NULL,
    user_id text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (key, uid)
);

CREATE INDEX IF NOT EXISTS attempt_user_id ON vouchers.attempt (user_id, at);
CREATE INDEX IF NOT EXISTS attempt_at ON vouchers.attempt (at);

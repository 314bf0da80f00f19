-- A transaction that changes nothing and still waits for the synchronous standbys at its commit.
SELECT pg_logical_emit_message(true, 'voucher-operator', ''::text)

"""How fast the ledger and the operator are, as ratios of one run on real parts: `make bench`.

    make bench                          all, about twenty minutes
    make bench ARGS=--quick             all, about a minute, noisier
    make bench ARGS="ledger --rounds 9" one of `ledger`, `pooler`, `redemptions`, `size`, `vouchers`

Absolute figures say more about a machine than about the code, so each measurement stands beside a floor or a rival that
is measured right before it, on the same servers; rounds alternate between the two, and medians are quoted with the
lowest and the highest round. Nothing here fails by being slow.

- `ledger`: one hot voucher. The rival is the Go service's transaction of five statements, run by pgbench (a client in
  C, prepared statements: no rival in Go is faster) over 8 connections on a database of its own, without our triggers,
  on the same PostgreSQL with fsync on. Ours is 256 callers of `Ledger.redeem`. Customers exist on both sides. Then a
  lone caller's latency against the five statements over one connection: psycopg's, as ours is, and pgbench's.
- `pooler`: the same callers through a PgBouncer, in session and in transaction mode, against no pooler.
- `redemptions`: 2,000 Redemptions wait while the operator is down; it starts, under the chart's ServiceAccount. Its
  time runs from the moment it leads to its last status write. The floor is the rate at which a client that does nothing
  else (`raw`: 20 connections, requests prepared beforehand, answers not parsed) sends the same patches with the same
  rights to 2,000 other Redemptions, half of them right before and half right after.
- `size`: a ledger of a million redemptions, 5.3 million entries and half a million purchases, written by PostgreSQL
  itself, with the server's own settings. `verify` and `export` read all of it, so the floor is one pass over the
  entries; a periodic read must not grow with history, so its rival is itself on a ledger of a hundredth.
- `vouchers`: 20,000 single-use codes as Vouchers: the operator's peak memory when it issues them and when it starts
  anew, less that without a Voucher, for each; and what it does while nothing changes.
"""

"""Real parts for tests, benchmarks and the demo: a control plane, PostgreSQL servers, operator processes.

Not shipped. `tools` builds the Go binaries, `processes` runs them and sees that none outlives its parent;
`control_plane`, `postgres` and `operator_process` each run one part; `cluster` puts them together.
"""

"""The Go service's way to redeem, by a client with little cost: pgbench with the five statements.

See also: `tests.ledger.go_service` has the same statements for tests; `ledger` compares.
"""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from uuid import UUID

import psycopg

from testbed.postgres import Database, Version, installation
from testbed.processes import TestbedError
from tests.ledger.go_service import STARTUP, GoService

CODE = "HOT"
CLIENTS = 8
PER_CLIENT = 10_000
"""Customers set aside for each connection in one measurement."""

# A customer's id is made of its number: pgbench knows numbers only.
CUSTOMER = "lpad(to_hex(:n::bigint), 32, '0')::uuid"
_SCRIPT = rf"""
\set i :i + 1
\set n :base + :client_id * {PER_CLIENT} + :i
BEGIN;
SELECT credit_omr, active, max_redemptions, times_redeemed, deleted_at
    FROM promo_codes WHERE code = '{CODE}' FOR UPDATE;
SELECT count(*) FROM promo_redemptions WHERE customer_id = {CUSTOMER} AND code = '{CODE}';
INSERT INTO promo_redemptions (customer_id, code) VALUES ({CUSTOMER}, '{CODE}');
UPDATE promo_codes SET times_redeemed = times_redeemed + 1 WHERE code = '{CODE}';
INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES ({CUSTOMER}, 25, E'promo\x3a{CODE}');
COMMIT;
"""


class GoWay:
    """The Go service's tables, alone in a database, with customers and one code."""

    def __init__(self, database: Database, version: Version, customers: int) -> None:
        self._url = database.owner_url
        self._pgbench = installation(version) / "bin" / "pgbench"
        self._next = 0
        with psycopg.connect(self._url, autocommit=True) as conn:
            for statement in STARTUP:
                conn.execute(statement.encode())
            fill(conn, customers)
            conn.execute("INSERT INTO promo_codes (code, credit_omr) VALUES (%s, 25)", (CODE,))

    def run(self, clients: int, seconds: float) -> tuple[float, float]:
        """Redeem for so long; returns transactions per second and the median time of one, in seconds."""
        base, self._next = self._next, self._next + clients * PER_CLIENT
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "script")
            script.write_text(_SCRIPT)
            flags = ["--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--time={seconds:.0f}", "--log"]
            names = ["--define=i=0", f"--define=base={base}", f"--file={script}"]
            command = [str(self._pgbench), *flags, *names, self._url]
            done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True)
            rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
            if done.returncode != 0 or rate is None:
                raise TestbedError(f"pgbench: {done.stderr.strip() or done.stdout.strip()}")
            times = [float(row.split()[2]) for log in Path(folder).glob("pgbench_log*") for row in log.open()]
        return float(rate.group(1)), median(times) / 1e6

    async def run_here(self, seconds: float) -> float:
        """Redeem for so long over one connection of psycopg, as ours is; returns the median time, in seconds."""
        base, self._next = self._next, self._next + PER_CLIENT
        times: list[float] = []
        async with GoService.connect(self._url) as go:
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                await go.redeem(UUID(int=base + len(times) + 1), CODE)
                times.append(time.perf_counter() - began)
        return median(times)


def fill(conn: psycopg.Connection, customers: int) -> None:
    """Make customers `user-1` … with ids that contain their number."""
    conn.execute(
        "INSERT INTO customers (id, user_id, tenant_id, email) "
        f"SELECT {CUSTOMER.replace(':n:', 'n:')}, 'user-' || n, 'tenant', 'someone@example.com' "
        "FROM generate_series(1, %s) AS n".encode(),
        (customers,),
    )
    conn.execute("ANALYZE customers")

"""One hot voucher: `Ledger.redeem` against the Go service's five statements. `benchmarks` has the method."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from statistics import median

import psycopg

from benchmarks.go_way import CLIENTS, CODE, PER_CLIENT, GoWay, fill
from benchmarks.report import line, ratios, title
from testbed.cluster import migrate
from testbed.postgres import Database, PostgresServer, Version
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.session import Pooler  # noqa: TC001
from voucher_operator.ledger.types import Outcome, RedeemRequest
from voucher_operator.resources.keys import Key

CALLERS = 256


def measure(version: Version, rounds: int, seconds: float) -> None:
    """Measure so many pairs of so long, and print them."""
    with PostgresServer(version, fsync=True) as server:
        customers = rounds * (CLIENTS + 2) * PER_CLIENT
        rival = GoWay(server.database("go"), version, customers)
        ours = OurWay(server.database("ours"), customers)
        title(f"ledger: one hot voucher on {_describe(server)}, {rounds} rounds of {seconds:g} s each")
        loads = [(rival.run(CLIENTS, seconds)[0], ours.run(CALLERS, seconds)[0]) for _ in range(rounds)]
        alone = [_alone(rival, ours, seconds) for _ in range(rounds)]
        new = [ours.run(CALLERS, seconds, strangers=True)[0] for _ in range(rounds)]
        _print_loads(loads, new)
        _print_alone(alone)


def _alone(rival: GoWay, ours: "OurWay", seconds: float) -> tuple[float, float, float]:
    return rival.run(1, seconds)[1], asyncio.run(rival.run_here(seconds)), ours.run(1, seconds)[1]


def _print_loads(loads: list[tuple[float, float]], new: list[float]) -> None:
    theirs, ours = [pair[0] for pair in loads], [pair[1] for pair in loads]
    line(f"five statements, {CLIENTS} connections (pgbench)", theirs, "/s")
    line(f"Ledger.redeem, {CALLERS} callers", ours, "/s")
    line("ratio", ratios(ours, theirs), "times", 1)
    line("Ledger.redeem, the same for customers yet unknown", new, "/s")
    line("ratio", ratios(new, theirs), "times", 1)


def _print_alone(alone: list[tuple[float, float, float]]) -> None:
    theirs, raw, ours = ([1e3 * found[n] for found in alone] for n in range(3))
    line("five statements, one connection (pgbench), median", theirs, "ms", 2)
    line("five statements, one connection of psycopg, median", raw, "ms", 2)
    line("Ledger.redeem, a lone caller, median", ours, "ms", 2)
    line("ratio to psycopg's (less is better)", ratios(ours, raw), "times", 2)
    line("ratio to pgbench's (less is better)", ratios(ours, theirs), "times", 2)


def _describe(server: PostgresServer) -> str:
    with psycopg.connect(server.admin_url) as conn:
        found = [conn.execute(f"SHOW {name}".encode()).fetchone() for name in ("server_version", "fsync")]
    return "PostgreSQL {}, fsync {}".format(*(row[0] for row in found if row is not None))


class OurWay:
    """A migrated ledger with the same customers and the same code; `url` may lead through a pooler."""

    def __init__(self, database: Database, customers: int) -> None:
        migrate(database)
        self.url = database.runtime_url
        self.pooler: Pooler = "auto"
        self._numbers = itertools.count(1)
        with psycopg.connect(database.owner_url, autocommit=True) as conn:
            fill(conn, customers)
            conn.execute("INSERT INTO promo_codes (code, credit_omr) VALUES (%s, 25)", (CODE,))

    def run(self, callers: int, seconds: float, *, strangers: bool = False) -> tuple[float, float]:
        """Redeem for so long; returns redemptions per second and the median time of one, in seconds."""
        return asyncio.run(self._run(callers, seconds, "stranger" if strangers else "user"))

    async def _run(self, callers: int, seconds: float, prefix: str) -> tuple[float, float]:
        ledger = Ledger(lambda: self.url, pooler=self.pooler)
        await ledger.open()
        try:
            # Connections and plans are there before the clock starts, as in a process that has run for a second.
            await asyncio.gather(*(self._call(ledger, self._requests(prefix), 0.2) for _ in range(callers)))
            began = time.perf_counter()
            found = await asyncio.gather(*(self._call(ledger, self._requests(prefix), seconds) for _ in range(callers)))
            took = time.perf_counter() - began
        finally:
            await ledger.close()
        times = [one for caller in found for one in caller]
        return len(times) / took, median(times)

    async def _call(self, ledger: Ledger, requests: Iterator[RedeemRequest], seconds: float) -> list[float]:
        times: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            result = await ledger.redeem(next(requests))
            times.append(time.perf_counter() - began)
            assert result.outcome is Outcome.REDEEMED, result
        return times

    def _requests(self, prefix: str) -> Iterator[RedeemRequest]:
        for n in self._numbers:
            yield RedeemRequest(
                key=Key(f"billing/{prefix}-{n}"),
                request_hash="0" * 64,
                uid=f"00000000-0000-0000-0000-{n:012}",
                code=CODE,
                user_id=f"{prefix}-{n}",
                tenant_id="tenant",
                email="someone@example.com",
            )
